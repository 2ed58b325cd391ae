"use strict";
// The search, loaded when it is first opened: mdBook's index and the engine it is made for.
window.guideSearch = ({ $, el, load, dialog }) => {
  const input = $("search-input"), status = $("search-status"), list = $("search-results");

  window.search = {};
  const ready = Promise.all([load(dialog.dataset.engine), load(dialog.dataset.index)]).then(() => ({
    ...window.search,
    index: elasticlunr.Index.load(window.search.index),
  }));
  ready.catch(() => {});

  const teaser = (body, words) => {
    const lower = body.toLowerCase();
    const hits = words.map((word) => lower.indexOf(word)).filter((at) => at >= 0);
    const from = Math.max(0, (hits.length ? Math.min(...hits) : 0) - 60);
    let cut = body.slice(from ? body.indexOf(" ", from) + 1 : 0, from + 180);
    if (from + 180 < body.length) cut = cut.slice(0, cut.lastIndexOf(" ")) + " …";
    if (!words.length) return [cut];
    const any = new RegExp("(" + words.map((word) => word.replace(/\W/g, "\\$&")).join("|") + ")", "i");
    return cut.split(any).map((part, i) => (i % 2 ? el("mark", { textContent: part }) : part));
  };

  // A chapter's own heading would repeat the chapter's name.
  const crumbs = (doc) => {
    const [chapter, ...rest] = doc.breadcrumbs.split(" » ");
    return [chapter, ...rest.filter((part) => !chapter.endsWith(part))].join(" › ");
  };

  const find = async () => {
    const term = input.value.trim();
    let found = [], book;
    if (term) {
      try {
        book = await ready;
      } catch {
        status.textContent = "The search index could not be loaded.";
        return;
      }
      if (term !== input.value.trim()) return;
      // The ledger repeats what the chapters say; they come first.
      const all = book.index.search(term, book.search_options);
      const ledger = ({ ref }) => book.doc_urls[ref].startsWith("claims.html");
      found = [...all.filter((hit) => !ledger(hit)), ...all.filter(ledger)].slice(0, book.results_options.limit_results);
    }
    const words = term.toLowerCase().split(/\s+/).filter(Boolean);
    list.replaceChildren(...found.map(({ ref, doc }) => el("li", {},
      el("a", { href: dialog.dataset.root + book.doc_urls[ref] },
        el("span", { className: "crumbs", textContent: crumbs(doc) }),
        el("span", { className: "teaser" }, ...teaser(doc.body, words))))));
    status.textContent = !term ? "" : !found.length ? "Nothing found." : found.length === 1 ? "1 result" : found.length + " results";
  };

  let timer;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, 120);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("#search-results a")) dialog.close();
  });
  dialog.addEventListener("keydown", async (event) => {
    if (event.key === "Enter" && event.target === input) {
      event.preventDefault();
      clearTimeout(timer);
      await find();
      list.querySelector("a")?.click();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const stops = [input, ...list.querySelectorAll("a")];
      const to = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
      stops[Math.min(Math.max(to, 0), stops.length - 1)].focus();
    }
  });
  find();
};
