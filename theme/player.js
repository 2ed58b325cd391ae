"use strict";
// The player: steps through a recording that the page holds, or through a run as it happens.
(() => {
  const root = document.getElementById("player");
  if (!root) return;
  const $ = (selector, within = root) => within.querySelector(selector);
  const el = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === undefined || value === false) continue;
      if (key in node && !key.includes("-") && key !== "style") node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== undefined && child !== ""));
    return node;
  };

  const recorded = JSON.parse($("script.recording").textContent);
  const story = $(".story"), now = $(".now"), state = $(".state");
  const goto = $(".goto"), speed = $(".speed"), every = $(".every"), linker = $(".link");
  const play = $(".play"), scrub = $(".scrub"), track = $(".track"), count = $(".count"), brief = $(".brief");
  const status = el("p", { className: "visually-hidden" });
  status.setAttribute("role", "status");
  root.append(status);

  /* What is played ------------------------------------------------------------------------- */

  let lanes, steps, acts, rows;
  let shown = []; // The steps the reader sees, in order.
  let at = 0; // The current one, as a position in `shown`.
  let timer = 0;
  let live = null; // While a run is shown: { source, following, over }.

  const lane = (id) => lanes.findIndex((lane) => lane.id === id);
  const label = (id) => lanes[lane(id)]?.label.replace("'", "’") ?? id;

  // Groups of a number stay together, and parties have their names.
  const words = (text) => text
    .replace(/(\d) (?=\d{3}(?!\d))/g, "$1\u202f")
    .replace(/\b(with|to|for|from) ([a-z]+(?:-[a-z]+)*)/g, (all, link, id) => (lane(id) < 0 ? all : `${link} ${label(id)}`));
  const upper = (text) => text[0].toUpperCase() + text.slice(1);
  const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const title = ({ kind, scene, text }) => {
    const number = kind === "scene" && /^step-(\d+)$/.exec(scene);
    return number ? `${number[1]}. ${text}` : words(text);
  };
  const isCode = (text) => !text.includes(" ") && /[_.A-Z]/.test(text);
  const name = (step) => {
    if (!isCode(step.text) || step.kind === "scene") return [title(step)];
    const parts = step.text.split(/(?<=[_.])/).flatMap((part, i) => (i ? [el("wbr", {}), part] : [part]));
    return [el("code", {}, ...parts)];
  };
  const route = ({ kind, from, at }) => {
    if (!from) return label(at);
    return `${label(from)} ${kind === "link" ? "–" : "→"} ${label(at)}`;
  };
  const KINDS = {
    scene: "Part of the story", message: "Message", onion: "Onion message", htlc: "HTLC message",
    event: "LDK event", note: "What it did", money: "Money", offline: "Goes offline", online: "Comes online",
    link: "Connection", block: "Block",
  };

  // The states of all parties once a step has happened.
  const states = (until) => {
    const all = {};
    for (const { n, changes } of steps) {
      if (n > until) break;
      for (const [party, lines] of Object.entries(changes || {})) {
        const own = (all[party] ||= {});
        for (const [key, value] of Object.entries(lines)) {
          if (value) own[key] = value;
          else delete own[key];
        }
      }
    }
    return all;
  };

  /* The story -------------------------------------------------------------------------------- */

  const off = (all) => lanes.map(({ id }, i) => (all[id]?.power === "offline" ? ` o${i}` : "")).join("");

  // As listings/book/src/player.rs makes them.
  const row = (step, power) => {
    const { n, kind, from, at, msat, scene } = step;
    const to = lane(at), of = from && lane(from) >= 0 ? lane(from) : to;
    const way = to < 0 ? "" : !from || of < 0 ? " here" : of < to ? " right" : of > to ? " left" : "";
    const a = el("a", { className: `row ${kind}${power}${way}`, href: kind === "scene" ? "#" + scene : "#moment-" + n });
    if (kind === "scene") a.append(title(step));
    else {
      a.append(el("span", { className: "who" }, route(step)), " ", el("span", { className: "what" }, ...name(step)));
      if (msat !== undefined) a.append(" ", el("span", { className: "much" }, grouped(msat) + "\u00a0msat"));
    }
    if (to >= 0) a.style.cssText = `--f:${Math.min(of, to)};--w:${Math.abs(of - to)}`;
    return a;
  };

  // Puts a row where it belongs: in its scene, behind the row before it.
  const place = (step, before, power) => {
    const a = row(step, power);
    a.tabIndex = -1;
    rows.set(step.n, a);
    if (step.kind === "scene") {
      acts.append(el("li", { className: "act" }, a, el("ol", {})));
      return;
    }
    const li = el("li", { className: step.background ? "bg" : "" }, a);
    const previous = before && rows.get(before.n);
    if (!previous) {
      if (!acts.lastElementChild) acts.append(el("li", { className: "act" }, el("ol", {})));
      acts.lastElementChild.lastElementChild.append(li);
    } else if (before.kind === "scene") previous.nextElementSibling.prepend(li);
    else previous.parentElement.after(li);
  };

  const fill = () => {
    steps.forEach((step, i) => {
      if (!rows.has(step.n)) place(step, steps[i - 1], off(states(step.n)));
    });
  };

  /* Bytes ------------------------------------------------------------------------------------ */

  let layerTitle = "";

  const bytesOf = ({ bytes, text }) => text
    ? new TextEncoder().encode(bytes)
    : Uint8Array.from(bytes.match(/../g) || [], (pair) => parseInt(pair, 16));

  // Where a JSON text may break for a reader, and how deep it is there.
  const breaksOf = (bytes) => {
    const breaks = new Map(), c = (i) => String.fromCharCode(bytes[i]);
    for (let i = 0, depth = 0, quoted = false; i < bytes.length; i++) {
      if (quoted) {
        if (c(i) === "\\") i++;
        else if (c(i) === '"') quoted = false;
      } else if (c(i) === '"') quoted = true;
      else if (/[{[]/.test(c(i))) { depth++; if (!/[\]}]/.test(c(i + 1))) breaks.set(i + 1, depth); }
      else if (/[\]}]/.test(c(i))) { depth--; if (!/[{[]/.test(c(i - 1))) breaks.set(i, depth); }
      else if (c(i) === ",") breaks.set(i + 1, depth);
    }
    return breaks;
  };

  const layerView = (layer) => {
    const bytes = bytesOf(layer), { fields, text } = layer;
    const breaks = text ? breaksOf(bytes) : new Map();
    const ends = new Set([0, bytes.length, ...breaks.keys()]);
    for (const { at, len } of fields) ends.add(at).add(at + len);
    if (!text) for (let i = 0; i < bytes.length; i += 8) ends.add(i);
    const edges = [...ends].filter((end) => end <= bytes.length).sort((a, b) => a - b);
    // Each piece knows its innermost field; every other field at the top has a shade.
    let top = 0;
    const parity = fields.map(({ depth }) => (depth ? top : ++top) % 2);
    const covers = (i, from, to) => fields[i].at <= from && to <= fields[i].at + fields[i].len;
    const pieces = edges.slice(0, -1).map((from, i) => {
      const to = edges[i + 1];
      let field = -1;
      fields.forEach((one, i) => {
        if (covers(i, from, to) && (field < 0 || (one.depth || 0) >= (fields[field].depth || 0))) field = i;
      });
      const hex = () => [...bytes.subarray(from, to)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
      const shown = text ? new TextDecoder().decode(bytes.subarray(from, to)) : hex();
      const node = el("span", { className: field >= 0 && parity[field] === 0 ? "b odd" : "b" }, shown);
      if (field >= 0) node.dataset.f = field;
      return { from, to, node };
    });

    const dump = el("div", { className: text ? "dump text" : "dump", tabIndex: 0, "aria-label": text ? "The text" : "The bytes in hex" });
    dump.setAttribute("role", "group");
    let line;
    for (const { from, node } of pieces) {
      if (text) {
        if (breaks.has(from)) dump.append("\n" + "  ".repeat(breaks.get(from)));
        dump.append(node);
      } else {
        if (from % 8 === 0) {
          line = el("span", { className: "line" }, el("span", { className: "at" }, from.toString(16).padStart(4, "0")));
          dump.append(line);
        } else line.append(node.dataset.f === line.lastElementChild.dataset.f ? " " : "\u2009");
        line.append(node);
      }
    }

    const options = fields.map(({ at, len, depth, name, value, meaning, varies }, i) => {
      const range = len > 1 ? `${at}–${at + len - 1}` : len ? `${at}` : `${at}, empty`;
      const option = el("li", { className: "field", tabIndex: i ? -1 : 0, style: `--d:${depth || 0}`, "aria-selected": "false" },
        el("span", { className: "range" }, range), " ",
        el("span", { className: "name" }, name), " ",
        el("span", { className: "value" }, value ? words(value) : ""), " ",
        el("span", { className: "meaning" }, [meaning, varies ? "Differs from run to run." : ""].filter(Boolean).join(" ")));
      option.setAttribute("role", "option");
      option.dataset.i = i;
      return option;
    });
    const list = el("ul", { className: "fields", "aria-label": "Fields of " + layer.title }, ...options);
    list.setAttribute("role", "listbox");

    // A field and its bytes light up together: under the pointer, or for good once chosen.
    let chosen = -1;
    const within = (box, node) => {
      const a = box.getBoundingClientRect(), b = node.getBoundingClientRect();
      if (b.top < a.top) box.scrollTop -= a.top - b.top + 8;
      else if (b.bottom > a.bottom) box.scrollTop += Math.min(b.bottom - a.bottom + 8, b.top - a.top);
    };
    const light = (i, { scroll } = {}) => {
      for (const { from, to, node } of pieces) node.classList.toggle("on", i >= 0 && covers(i, from, to));
      options.forEach((option, o) => option.classList.toggle("on", o === i));
      if (i < 0 || !scroll) return;
      const first = pieces.find(({ from, to }) => covers(i, from, to));
      if (first && scroll !== "fields") within(dump, first.node);
      if (scroll !== "dump") within(list, options[i]);
    };
    const choose = (i, { scroll = true, focus } = {}) => {
      chosen = i;
      options.forEach((option, o) => {
        option.setAttribute("aria-selected", o === i);
        option.tabIndex = o === Math.max(i, 0) ? 0 : -1;
      });
      light(i, { scroll });
      if (focus) options[i]?.focus({ preventScroll: true });
    };
    const fieldAt = (event) => {
      const node = event.target.closest("[data-f], [data-i]");
      return node ? +(node.dataset.f ?? node.dataset.i) : -1;
    };
    for (const [box, other] of [[dump, "fields"], [list, "dump"]]) {
      box.addEventListener("pointerover", (event) => {
        if (event.pointerType === "touch") return;
        const i = fieldAt(event);
        if (i >= 0) light(i, { scroll: other });
      });
      box.addEventListener("pointerleave", () => light(chosen));
      box.addEventListener("click", (event) => {
        const i = fieldAt(event);
        if (i >= 0) choose(i === chosen ? -1 : i, { scroll: other });
      });
    }
    list.addEventListener("focusin", (event) => {
      const i = fieldAt(event);
      if (i >= 0 && i !== chosen && event.target.matches(":focus-visible")) choose(i);
    });
    list.addEventListener("keydown", (event) => {
      const from = fieldAt(event), last = options.length - 1;
      const to = { ArrowDown: Math.min(from + 1, last), ArrowUp: Math.max(from - 1, 0), Home: 0, End: last }[event.key];
      if (to === undefined || event.shiftKey || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      choose(to, { focus: true });
    });
    return [dump, list];
  };

  const bytesView = (layers) => {
    const box = el("div", { className: "bytes" });
    let open = Math.max(0, layers.findIndex((layer) => layer.title === layerTitle));
    const tabs = layers.map((layer, i) => el("button", { type: "button", className: "layer", onclick: () => {
      layerTitle = layer.title;
      open = i;
      draw();
    } }, layer.title));
    const draw = () => {
      tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", i === open));
      while (box.children.length > 1) box.lastElementChild.remove();
      box.append(...layerView(layers[open]));
    };
    const bar = el("div", { className: "layers", "aria-label": "Layers" }, ...(tabs.length > 1 ? tabs : [el("span", { className: "layer" }, layers[0].title)]));
    if (tabs.length > 1) bar.setAttribute("role", "group");
    box.append(bar);
    draw();
    return box;
  };

  /* The current step ---------------------------------------------------------------------------- */

  const sentence = (step) => {
    const parts = [title(step)];
    if (step.kind !== "scene") parts.push(route(step));
    if (step.msat !== undefined) parts.push(grouped(step.msat) + " msat");
    return parts.join(", ");
  };

  const showNow = (step) => {
    const { kind, bytes, msat, detail, explained, scene } = step;
    const facts = [];
    if (kind !== "scene") facts.push(route(step));
    if (bytes !== undefined) facts.push(grouped(bytes) + (bytes === 1 ? " byte" : " bytes"));
    const parts = [
      el("p", { className: "kind " + kind }, KINDS[kind] || kind),
      el("h2", {}, ...name(step)),
      el("p", { className: "route" }, facts.join(", ")),
    ];
    if (msat !== undefined) parts.push(el("p", { className: "much" }, grouped(msat) + " msat"));
    if (detail) parts.push(el("p", { className: "more" }, words(detail)));
    const chapter = kind === "scene" && recorded.chapters[scene];
    if (chapter) parts.push(el("p", { className: "chapter" }, el("a", { href: chapter }, "The chapter about it")));
    if (explained?.length) parts.push(bytesView(explained));
    const focused = now.contains(document.activeElement);
    now.replaceChildren(...parts);
    if (focused) root.focus({ preventScroll: true });
    now.scrollTop = 0;
  };

  const ORDER = ["htlc", "lease", "static invoice", "mailbox"];
  const rank = (key) => {
    const known = ORDER.indexOf(key);
    if (known >= 0) return known;
    return key === "on chain" ? 99 : 10 + lane(key.split(" ").at(-1)) * 2 + (key.startsWith("can ") ? 1 : 0);
  };
  const firstNumber = (text) => Number((/\d[\d ]*/.exec(text) || ["0"])[0].replaceAll(" ", ""));

  // What each party has, and what the steps since the last one shown have changed of it.
  const showState = (before, step) => {
    const all = states(step.n), changed = {};
    for (const { n, changes } of steps) {
      if (n <= before || n > step.n) continue;
      for (const [party, lines] of Object.entries(changes || {})) Object.assign((changed[party] ||= {}), lines);
    }
    const cards = lanes.map(({ id }, i) => {
      const own = all[id] || {}, fresh = changed[id] || {};
      const keys = [...new Set([...Object.keys(own), ...Object.keys(fresh)])].filter((key) => key !== "power");
      keys.sort((a, b) => rank(a) - rank(b));
      const lines = keys.map((key) => {
        const gone = !own[key];
        const line = el("div", { className: (key in fresh ? "changed" : "") + (gone ? " gone" : "") },
          el("dt", {}, upper(words(key)).replace(/^Htlc/, "HTLC")),
          el("dd", {}, gone ? "empty" : words(own[key])));
        if (!gone) line.dataset.key = key;
        const capacity = key.startsWith("can send to ") && firstNumber((own[key.replace("can send to", "channel with")] || "").replace(/^\D*/, "")) * 1000;
        if (capacity && !gone) {
          const share = (100 * firstNumber(own[key])) / capacity;
          line.append(el("dd", { className: "meter", "aria-hidden": "true", style: `--share:${share.toFixed(2)}%` }));
        }
        if (key in fresh) line.firstChild.append(el("span", { className: "visually-hidden" }, " (changed)"));
        return line;
      });
      const power = own.power || "online";
      const card = el("section", { className: "party", "aria-label": label(id) },
        el("h3", {}, label(id), el("span", { className: "power " + power + ("power" in fresh ? " changed" : "") }, power)),
        lines.length ? el("dl", {}, ...lines) : el("p", { className: "nothing" }, "nothing yet"));
      card.dataset.party = id;
      card.dataset.power = power;
      const head = story.querySelectorAll(".lanes li")[i];
      head.classList.toggle("off", power === "offline");
      head.classList.toggle("on", step.at === id || step.from === id);
      return card;
    });
    state.replaceChildren(...cards);
  };

  let told = 0;
  const tell = (step) => {
    clearTimeout(told);
    // Not while steps fly by, and not twice: the slider says its own value.
    if (timer && +speed.value < 1600) return;
    if (document.activeElement === scrub) return;
    told = setTimeout(() => { status.textContent = sentence(step); }, 250);
  };

  let noted = 0;
  const address = (step) => (step.kind === "scene" ? "#" + step.scene : "#moment-" + step.n);
  // Browsers refuse too many changes of the address in a short time.
  const note = (step, push) => {
    if (live) return;
    clearTimeout(noted);
    const write = () => history[push ? "pushState" : "replaceState"](null, "", address(step));
    if (push) write();
    else noted = setTimeout(write, 300);
  };

  const current = () => shown[at];

  const show = ({ quiet, keep } = {}) => {
    const step = current();
    if (!step) return;
    rows.forEach((a) => {
      if (!a.hasAttribute("aria-current")) return;
      a.removeAttribute("aria-current");
      a.tabIndex = -1;
    });
    const a = rows.get(step.n);
    const inStory = story.contains(document.activeElement);
    a.setAttribute("aria-current", "step");
    a.tabIndex = 0;
    if (inStory) a.focus({ preventScroll: true });
    const box = a.getBoundingClientRect(), pane = story.getBoundingClientRect();
    if (!keep) story.scrollTop += box.top - pane.top - story.clientHeight * 0.45;
    showNow(step);
    showState(at ? shown[at - 1].n : -1, step);
    scrub.max = shown.length - 1;
    scrub.value = at;
    scrub.style.setProperty("--at", shown.length > 1 ? at / (shown.length - 1) : 0);
    scrub.setAttribute("aria-valuetext", `${at + 1} of ${shown.length}: ${sentence(step)}`);
    count.textContent = `${at + 1} / ${shown.length}`;
    brief.replaceChildren(el("span", {}, step.kind === "scene" ? "" : route(step)), " ", el("strong", {}, ...name(step)));
    goto.value = step.scene;
    if (!quiet) tell(step);
  };

  const go = (to, { push, quiet } = {}) => {
    to = Math.max(0, Math.min(to, shown.length - 1));
    if (live && to < shown.length - 1) follow(false);
    if (to === at && !push) return;
    at = to;
    show({ quiet });
    note(current(), push);
  };
  const goScene = (way) => {
    const starts = shown.flatMap((step, i) => (step.kind === "scene" ? [i] : []));
    const to = way > 0 ? starts.find((i) => i > at) ?? shown.length - 1 : starts.findLast((i) => i < at) ?? 0;
    go(to, { push: true });
  };

  // The steps shown have changed: the current one stays, or the one before it.
  const select = (n) => {
    shown = steps.filter((step) => every.checked || !step.background);
    at = Math.max(0, shown.findLastIndex((step) => step.n <= n));
    track.querySelectorAll(".tick").forEach((tick) => tick.remove());
    shown.forEach((step, i) => {
      if (step.kind === "scene") track.prepend(el("span", { className: "tick", style: `--at:${i / Math.max(1, shown.length - 1)}` }));
    });
  };

  /* Playing ---------------------------------------------------------------------------------------- */

  const pause = () => {
    clearTimeout(timer);
    timer = 0;
    play.setAttribute("aria-label", "Play");
    delete root.dataset.playing;
  };
  const tick = () => {
    if (at >= shown.length - 1) {
      pause();
      return tell(current());
    }
    go(at + 1);
    timer = setTimeout(tick, +speed.value * (current().kind === "scene" ? 1.5 : 1));
  };
  const start = () => {
    if (at >= shown.length - 1) {
      if (live && !live.over) return follow(true);
      go(0);
    }
    play.setAttribute("aria-label", "Pause");
    root.dataset.playing = "";
    timer = setTimeout(tick, 400);
  };
  const toggle = () => {
    if (live?.following) return follow(false);
    if (timer) {
      pause();
      tell(current());
    } else start();
  };
  const step = (way) => {
    pause();
    go(at + way);
  };

  play.addEventListener("click", toggle);
  $(".back").addEventListener("click", () => step(-1));
  $(".forward").addEventListener("click", () => step(1));
  scrub.addEventListener("input", () => {
    pause();
    go(+scrub.value);
  });
  goto.addEventListener("change", () => {
    pause();
    go(shown.findIndex((step) => step.scene === goto.value), { push: true });
  });
  every.addEventListener("change", () => {
    const n = current().n;
    if (every.checked) fill();
    story.classList.toggle("all", every.checked);
    select(n);
    show({ quiet: true });
  });
  linker.addEventListener("click", async () => {
    history.replaceState(null, "", address(current()));
    try {
      await navigator.clipboard.writeText(location.href);
      linker.textContent = "Copied";
    } catch {
      // The address bar has it.
      linker.textContent = "In the address bar";
    }
    status.textContent = linker.textContent;
    setTimeout(() => { linker.textContent = "Copy link"; }, 1600);
  });
  story.addEventListener("click", (event) => {
    const a = event.target.closest("a.row");
    if (!a || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    pause();
    for (const [n, one] of rows) if (one === a) go(shown.findIndex((step) => step.n === n), { push: true });
  });

  root.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    const target = event.target, key = event.key;
    if (target.closest("select")) return;
    if (key === " " && target.closest("button, input[type=checkbox], a:not(.row)")) return;
    const acts = {
      " ": toggle, k: toggle,
      ArrowRight: () => (event.shiftKey ? (pause(), goScene(1)) : step(1)),
      ArrowLeft: () => (event.shiftKey ? (pause(), goScene(-1)) : step(-1)),
      Home: () => (pause(), go(0)),
      End: () => (pause(), go(shown.length - 1)),
    };
    if (story.contains(target)) Object.assign(acts, { ArrowDown: () => step(1), ArrowUp: () => step(-1) });
    const act = Object.hasOwn(acts, key) && acts[key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  /* Links to a moment ------------------------------------------------------------------------------- */

  const fromAddress = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const number = /^moment-(\d+)$/.exec(id);
    if (number) return steps[Math.min(+number[1], steps.length - 1)]?.n;
    const target = id && document.getElementById(id), a = target && target.querySelector(".row");
    if (a && acts.contains(a)) for (const [n, one] of rows) if (one === a) return n;
  };
  const follow_address = () => {
    if (live) return;
    const n = fromAddress();
    if (n === undefined) return;
    pause();
    if (steps[n].background && !every.checked) {
      every.checked = true;
      fill();
      story.classList.add("all");
    }
    select(n);
    show({ quiet: true });
    root.scrollIntoView();
    tell(current());
  };

  /* Recorded or live -------------------------------------------------------------------------------- */

  const scenes = () => {
    goto.replaceChildren(...steps.filter((step) => step.kind === "scene").map((step) => el("option", { value: step.scene }, title(step))));
  };
  const load = () => {
    lanes = recorded.header.lanes;
    steps = recorded.steps;
    rows = new Map();
    acts.querySelectorAll(".row").forEach((a) => {
      a.tabIndex = -1;
      rows.set(+a.id.slice("moment-".length), a);
    });
    scenes();
    select(0);
  };
  const follow = () => {};

  acts = $(".acts");
  load();
  show({ quiet: true });
  root.dataset.ready = "";
  follow_address();
  addEventListener("hashchange", follow_address);
})();
