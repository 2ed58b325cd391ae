"use strict";
(() => {
  const html = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const keep = (key, value) => {
    try {
      if (value) localStorage.setItem(key, value);
      else localStorage.removeItem(key);
    } catch { /* Forbidden: the choice lasts for this page. */ }
  };
  const el = (tag, attributes, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };

  // Colours: as the system has them, light, dark.
  const toggle = $("theme-toggle");
  const says = { auto: "as the system has them", light: "light", dark: "dark" };
  const showTheme = () => {
    const choice = html.dataset.theme || "auto";
    toggle.dataset.choice = choice;
    toggle.title = "Colours: " + says[choice];
    toggle.setAttribute("aria-label", toggle.title);
  };
  toggle.addEventListener("click", () => {
    const next = { auto: "light", light: "dark", dark: "auto" }[toggle.dataset.choice];
    if (next === "auto") delete html.dataset.theme;
    else html.dataset.theme = next;
    keep("guide-theme", html.dataset.theme);
    showTheme();
  });
  showTheme();

  // The role lens. The style sheet hides; here it is counted, told and undone.
  const lens = $("lens");
  const roles = [...document.querySelectorAll(".role[data-roles]")];
  const showLens = () => {
    const role = html.dataset.lens || "";
    lens.value = role;
    const hidden = role && roles.filter((block) => !block.dataset.roles.split(" ").includes(role)).length;
    $("lens-note").hidden = !hidden;
    $("lens-count").textContent = hidden
      ? (hidden === 1 ? "1 part" : hidden + " parts") + " for other roles hidden."
      : "";
  };
  const setLens = (role) => {
    if (role) html.dataset.lens = role;
    else delete html.dataset.lens;
    keep("guide-lens", role);
    showLens();
  };
  lens.addEventListener("change", () => setLens(lens.value));
  $("lens-all").addEventListener("click", () => { setLens(""); lens.focus({ preventScroll: true }); });
  showLens();

  // A fragment inside a hidden part: the style sheet shows the part once it is the target.
  const named = () => {
    // A fragment that somebody cut in the middle of a character names nothing.
    try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }
  };
  const reveal = () => {
    const target = named() && $(named());
    if (!target) return;
    const folded = target.closest("details");
    if (folded) folded.open = true;
    if (target.closest(".role, details")) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Contents, on narrow screens: a drawer that keeps the focus until it closes.
  const sidebar = $("sidebar"), opener = $("sidebar-toggle");
  const behind = [$("bar"), $("page"), document.querySelector(".skip")];
  const narrow = matchMedia("(max-width: 63.99rem)");
  const drawer = (open) => {
    if (sidebar.classList.contains("open") === open) return;
    sidebar.classList.toggle("open", open);
    opener.setAttribute("aria-expanded", open);
    behind.forEach((part) => { part.inert = open; });
    if (!open) return opener.focus();
    const here = sidebar.querySelector("[aria-current]") || sidebar.querySelector("a");
    here.focus({ preventScroll: true });
    here.scrollIntoView({ block: "nearest" });
  };
  opener.addEventListener("click", () => drawer(true));
  sidebar.addEventListener("keydown", (event) => {
    if (!sidebar.classList.contains("open") || event.key !== "Tab") return;
    const links = [...sidebar.querySelectorAll("a")].filter((a) => a.offsetParent);
    const edge = event.shiftKey ? links[0] : links.at(-1);
    if (document.activeElement !== edge) return;
    event.preventDefault();
    (event.shiftKey ? links.at(-1) : links[0]).focus();
  });
  document.addEventListener("click", (event) => {
    if (sidebar.classList.contains("open") && !sidebar.contains(event.target) && !opener.contains(event.target)) drawer(false);
  });
  narrow.addEventListener("change", () => drawer(false));

  // On this page.
  const headings = [...document.querySelectorAll("main > h2[id], main > .role > h2[id]")];
  if (headings.length > 1) {
    const list = el("ol");
    const links = headings.map((heading) => {
      const a = el("a", { href: "#" + heading.id, textContent: heading.textContent });
      list.append(el("li", {}, a));
      return a;
    });
    $("page-toc").append(el("h2", { textContent: "On this page" }), list);
    let waiting = false;
    const mark = () => {
      waiting = false;
      const at = headings.findLastIndex((heading) => heading.offsetParent && heading.getBoundingClientRect().top < 160);
      links.forEach((a, i) => (i === at ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current")));
    };
    addEventListener("scroll", () => {
      if (!waiting) requestAnimationFrame(mark);
      waiting = true;
    }, { passive: true });
    mark();
  } else {
    $("page-toc").hidden = true;
  }

  // Copy: the code as it stands; of a console session, the commands.
  const copyText = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = el("textarea", { value: text, className: "visually-hidden" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  document.querySelectorAll("figure.listing:not(.output)").forEach((figure) => {
    const code = figure.querySelector("code");
    if (!code) return;
    const button = el("button", { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      const all = code.textContent;
      const text = code.querySelector(".p") ? all.match(/^\$ .*\n?/gm).map((line) => line.slice(2)).join("") : all;
      try {
        await copyText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not copied";
      }
      button.dataset.done = "";
      setTimeout(() => { button.textContent = "Copy"; delete button.dataset.done; }, 1600);
    });
    figure.append(button);
  });

  // The boxes of a task list need a name.
  document.querySelectorAll("li input[type=checkbox]").forEach((box) => {
    box.setAttribute("aria-label", box.checked ? "done" : "to do");
  });

  // What scrolls sideways can be reached with the keyboard.
  const scrollable = () => document.querySelectorAll(".table-wrapper").forEach((box) => {
    if (box.scrollWidth <= box.clientWidth) return;
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Table, scrolls sideways");
  });
  scrollable();
  addEventListener("resize", scrollable);

  // Search: its script, the engine and the index come with the first question.
  const dialog = $("search");
  let search;
  const load = (src) => new Promise((resolve, reject) => {
    document.head.append(el("script", { src, onload: resolve, onerror: reject }));
  });
  const openSearch = () => {
    if (!dialog || dialog.open) return;
    drawer(false);
    dialog.showModal();
    $("search-input").select();
    search ||= load(dialog.dataset.script).then(() => guideSearch({ $, el, load, dialog }), () => {
      $("search-status").textContent = "The search could not be loaded.";
      search = null;
    });
  };
  $("search-toggle")?.addEventListener("click", openSearch);

  // Keys.
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || dialog?.open) return;
    if (event.key === "Escape") return drawer(false);
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    if (event.key === "/" || event.key === "s") {
      event.preventDefault();
      openSearch();
    }
    if (event.target.closest("pre, [tabindex='0']")) return;
    const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    const link = way && document.querySelector(`.turn a[rel="${way}"]`);
    if (link?.offsetParent) link.click();
  });
})();
