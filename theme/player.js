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
  for (const step of recorded.steps) step.explained = step.explained?.map((layer) => recorded.layers[layer]);
  const story = $(".story"), now = $(".now"), state = $(".state");
  const goto = $(".goto"), speed = $(".speed"), every = $(".every"), linker = $(".link");
  const play = $(".play"), scrub = $(".scrub"), track = $(".track"), count = $(".count"), brief = $(".brief");
  const legend = $(".legend");
  const status = el("p", { className: "visually-hidden" });
  status.setAttribute("role", "status");
  root.append(status);

  /* What is played ------------------------------------------------------------------------- */

  let lanes, steps, acts, rows;
  let shown = []; // The steps the reader sees, in order.
  let at = 0; // The current one, as a position in `shown`.
  let timer = 0;
  let live = null; // While a run is shown: { source, following, over, lost }.

  const lane = (id) => lanes.findIndex((lane) => lane.id === id);
  const label = (id) => lanes[lane(id)]?.label.replace("'", "’") ?? id;

  // Groups of a number stay together, and parties have their names.
  const words = (text) => text
    .replace(/(\d) (?=\d{3}(?!\d))/g, "$1\u00a0")
    .replace(/\b(with|to|for|from|id|client) ([a-z]+(?:-[a-z]+)*)/g, (all, link, id) => (lane(id) < 0 ? all : `${link} ${label(id)}`));
  const upper = (text) => text[0].toUpperCase() + text.slice(1);
  const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
  const title = ({ kind, scene, text }) => {
    const number = kind === "scene" && /^step-(\d+)$/.exec(scene);
    return number ? `${number[1]}. ${text}` : words(text);
  };
  const isCode = (text) => !text.includes(" ") && /[_.A-Z]/.test(text);
  const name = (step) => {
    if (!isCode(step.text) || step.kind === "scene") return [title(step)];
    const parts = step.text.split(/(?<=[_.])|(?<=[a-z])(?=[A-Z])/).flatMap((part, i) => (i ? [el("wbr", {}), part] : [part]));
    return [el("code", {}, ...parts)];
  };
  const route = ({ kind, from, at }) => {
    if (!from) return lane(at) < 0 ? "" : label(at);
    return `${label(from)} ${kind === "link" ? "–" : "→"} ${label(at)}`;
  };
  // What the amount beside it does not say.
  const more = ({ detail, msat }) => {
    const sum = msat === undefined ? "" : String(msat).replace(/\B(?=(\d{3})+$)/g, " ") + " msat";
    return (sum && detail?.startsWith(sum) ? detail.slice(sum.length).replace(/^[,:] /, "") : detail) || "";
  };
  const KINDS = {
    message: "Message", onion: "Onion message", htlc: "HTLC message",
    event: "LDK event", note: "What it did", money: "State of the payment", offline: "Goes offline", online: "Comes online",
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

  // Scrolls a box, and nothing around it, until a part of it is in sight.
  const within = (box, node) => {
    const a = box.getBoundingClientRect(), b = node.getBoundingClientRect();
    if (b.top < a.top) box.scrollTop -= a.top - b.top + 8;
    else if (b.bottom > a.bottom) box.scrollTop += Math.min(b.bottom - a.bottom + 8, b.top - a.top);
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
      if (!line || (text ? breaks.has(from) : from % 8 === 0)) {
        line = el("span", { className: "line", style: text ? `--d:${breaks.get(from) || 0}` : undefined });
        if (!text) line.append(el("span", { className: "at" }, from.toString(16).padStart(4, "0")));
        dump.append(line, "\n");
      } else if (!text) line.append(" ");
      line.append(node);
    }

    const options = fields.map(({ at, len, depth, name, value, meaning, varies }, i) => {
      const range = len > 1 ? `${at}–${at + len - 1}` : len ? `${at}` : `${at}, empty`;
      const option = el("li", { className: "field", tabIndex: i ? -1 : 0, style: `--d:${depth || 0}`, "aria-selected": "false" },
        el("span", { className: "range" }, range), " ",
        el("span", { className: "name" }, name), " ",
        el("span", { className: /^[0-9a-f]{20,}$/.test(value) ? "value long" : "value" }, value ? words(value) : ""), " ",
        el("span", { className: "meaning" }, [meaning, varies ? "differs from run to run" : ""].filter(Boolean).join("; ")));
      option.setAttribute("role", "option");
      option.dataset.i = i;
      return option;
    });
    const list = el("ul", { className: "fields", "aria-label": "Fields of " + layer.title }, ...options);
    list.setAttribute("role", "listbox");

    // A field and its bytes light up together: under the pointer, or for good once chosen.
    let chosen = -1;
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

  const bytesView = (layers, text) => {
    const box = el("div", { className: "bytes" });
    let open = Math.max(0, layers.findIndex((layer) => layer.title === layerTitle));
    const tabs = layers.map((layer, i) => el("button", { type: "button", className: "layer", style: `--d:${i}`, onclick: () => {
      layerTitle = layer.title;
      open = i;
      draw();
    } }, layer.title));
    const draw = () => {
      tabs.forEach((tab, i) => tab.setAttribute("aria-pressed", i === open));
      while (box.children.length > 1) box.lastElementChild.remove();
      box.append(...layerView(layers[open]));
    };
    const bar = el("div", { className: "layers", "aria-label": "Layers" }, ...(tabs.length > 1 ? tabs : layers[0].title === text ? [] : [layers[0].title]));
    if (tabs.length > 1) bar.setAttribute("role", "group");
    box.append(bar);
    draw();
    return box;
  };

  /* The current step ---------------------------------------------------------------------------- */

  const sentence = (step) => {
    const parts = [title(step)];
    if (step.kind !== "scene" && route(step)) parts.push(route(step));
    if (step.msat !== undefined) parts.push(grouped(step.msat) + " msat");
    return parts.join(", ");
  };

  const showNow = (step) => {
    const { kind, bytes, msat, explained, scene } = step;
    const facts = [];
    if (kind !== "scene" && route(step)) facts.push(route(step));
    if (bytes !== undefined) facts.push(grouped(bytes) + (bytes === 1 ? " byte" : " bytes"));
    const parts = [
      el("p", { className: "kind" }, KINDS[kind] ?? ""),
      el("h2", {}, ...name(step)),
      el("p", { className: "route" }, facts.join(", ")),
    ];
    if (msat !== undefined) parts.push(el("p", { className: "much" }, grouped(msat) + " msat"));
    if (more(step)) parts.push(el("p", { className: "more" }, words(more(step))));
    const chapter = kind === "scene" && recorded.chapters[scene];
    if (chapter) parts.push(el("p", { className: "chapter" }, el("a", { href: chapter }, "The chapter about it")));
    if (kind === "scene") parts.push(legend);
    if (explained?.length) parts.push(bytesView(explained, step.text));
    const focused = now.contains(document.activeElement);
    if (!timer) now.style.minHeight = "";
    now.replaceChildren(...parts);
    if (focused) root.focus({ preventScroll: true });
    now.scrollTop = 0;
    // Where the states stand below it, they stand still while steps go by.
    now.style.minHeight = timer ? now.offsetHeight + "px" : "";
  };

  // Lines of a party's state in one order, whichever came first.
  const ORDER = ["htlc", "lease", "static invoice", "mailbox"];
  const rank = (key) => {
    const known = ORDER.indexOf(key);
    return known >= 0 ? known : key === "on chain" ? 99 : 10 + lane(key.split(" ").at(-1));
  };
  const SEND = "can send to ";
  const line = (party, key, value, fresh) => {
    const dt = el("dt", {}, upper(words(key)).replace(/^Htlc/, "HTLC"));
    if (fresh) dt.append(el("span", { className: "visually-hidden" }, " (changed)"));
    const box = el("div", { className: (fresh ? "changed" : "") + (value ? "" : " gone") }, dt, el("dd", {}, value ? words(value) : "empty"));
    if (value) box.dataset.key = key;
    return box;
  };

  // `95 870 000 msat of 213 011 sat, 2 130 000 msat in reserve`, in msat.
  const sums = (value) => {
    const [can, of, kept] = (value.match(/\d[\d ]*/g) || []).map((digits) => Number(digits.replaceAll(" ", "")));
    return { can: can || 0, of: (of || 0) * 1000, kept: kept || 0 };
  };

  // A channel between two parties: what each can send of it; a dashed line where there is none.
  const channel = (a, b, all, changed) => {
    const ends = [[a, b], [b, a]].map(([own, other]) => {
      const key = SEND + other.id, value = all[own.id]?.[key];
      return { own, key, value, fresh: key in (changed[own.id] || {}) };
    });
    const known = ends.filter(({ value }) => value);
    const pair = el("h4", {}, `${label(a.id)} – ${label(b.id)}`);
    if (!known.length) return el("div", { className: "channel none" }, pair, el("p", { className: "gauge" }), el("p", { className: "sums" }, "no channel"));
    const [left, right] = ends.map(({ value }) => sums(value || ""));
    const of = left.of || right.of, share = (msat) => `${((100 * msat) / of).toFixed(2)}%`;
    const bar = el("p", { className: "gauge", "aria-hidden": "true", style: `--l:${share(left.can)};--lk:${share(left.can + left.kept)};--r:${share(right.can)};--rk:${share(right.can + right.kept)}` });
    pair.append(el("span", { className: "of" }, grouped(of / 1000) + " sat"));
    const amounts = ends.map(({ own, key, value, fresh }) => {
      const shown = value ? grouped(sums(value).can) + " msat" : "…";
      const end = el("span", { className: fresh ? "changed" : "" },
        el("span", { "aria-hidden": "true" }, shown),
        el("span", { className: "visually-hidden" }, value ? `${label(own.id)} can send ${words(value)}${fresh ? " (changed)" : ""}. ` : ""));
      if (value) {
        end.dataset.party = own.id;
        end.dataset.key = key;
        end.title = words(value);
      }
      return end;
    });
    return el("div", { className: "channel" }, pair, bar, el("p", { className: "sums" }, ...amounts));
  };

  // What follows a step unseen belongs to it: a node tells its balances after what has changed them.
  const until = (position) => {
    if (position < 0) return -1;
    const next = shown[position + 1];
    return next ? next.n - 1 : steps.at(-1).n;
  };

  // What each party has, and what this step has changed of it.
  const showState = (step, before, after) => {
    const all = states(after), changed = {};
    for (const { n, changes } of steps) {
      if (n <= before || n > after || !at) continue; // At first, everything is new.
      for (const [party, lines] of Object.entries(changes || {})) Object.assign((changed[party] ||= {}), lines);
    }
    const pairs = lanes.flatMap((a, i) => lanes.slice(i + 1).map((b) => [a, b]))
      .filter(([a, b]) => lane(b.id) === lane(a.id) + 1 || all[a.id]?.[SEND + b.id] || all[b.id]?.[SEND + a.id]);
    const channels = el("section", { className: "channels", "aria-label": "Channels" },
      el("h3", {}, "Who can send what"), ...pairs.map(([a, b]) => channel(a, b, all, changed)));
    const heads = story.querySelectorAll(".lanes li");
    const cards = lanes.map(({ id }, i) => {
      const own = all[id] || {}, fresh = changed[id] || {};
      const keys = [...new Set([...Object.keys(own), ...Object.keys(fresh)])].filter((key) => key !== "power" && !key.startsWith(SEND));
      keys.sort((a, b) => rank(a) - rank(b));
      const power = own.power || "online";
      const card = el("section", { className: "party", "aria-label": label(id) },
        el("h3", {}, label(id), el("span", { className: "power " + power + ("power" in fresh ? " changed" : "") }, power)),
        keys.length ? el("dl", {}, ...keys.map((key) => line(id, key, own[key], key in fresh))) : "");
      card.dataset.party = id;
      card.dataset.power = power;
      heads[i].classList.toggle("off", power === "offline");
      heads[i].classList.toggle("on", step.at === id || step.from === id);
      return card;
    });
    state.replaceChildren(channels, ...cards);
    // Where the pane has a height of its own, the change is in sight, and the keyboard can scroll it.
    const news = state.querySelector(".changed");
    if (news && getComputedStyle(state).overflowY === "auto") within(state, news);
    for (const pane of [now, state]) {
      if (getComputedStyle(pane).overflowY === "auto" && pane.scrollHeight > pane.clientHeight) pane.tabIndex = 0;
      else pane.removeAttribute("tabindex");
    }
  };

  let telling = 0;
  const tell = (step) => {
    clearTimeout(telling);
    if (!step) return;
    // Not while steps fly by, and not twice: the slider says its own value.
    if ((timer && +speed.value < 1600) || live?.following) return;
    if (document.activeElement === scrub) return;
    telling = setTimeout(() => { status.textContent = sentence(step); }, 250);
  };

  let noted = 0, settle; // What is still to be written to the address.
  const address = (step) => (step.kind === "scene" ? "#" + step.scene : "#moment-" + step.n);
  // Browsers refuse too many changes of the address in a short time.
  const note = (step, push) => {
    if (live) return;
    clearTimeout(noted);
    if (push) {
      // The way back leads to the step that was left.
      settle?.();
      history.pushState(null, "", address(step));
      return;
    }
    settle = () => {
      settle = undefined;
      history.replaceState(null, "", address(step));
    };
    noted = setTimeout(() => settle?.(), 300);
  };
  // The address has changed meanwhile: what was to be written belongs to another entry.
  const unnote = () => {
    clearTimeout(noted);
    settle = undefined;
  };

  const current = () => shown[at];
  const centre = (a) => {
    story.scrollTop += a.getBoundingClientRect().top - story.getBoundingClientRect().top - story.clientHeight * 0.45;
  };

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
    if (!keep) centre(a);
    showNow(step);
    showState(step, until(at - 1), until(at));
    scrub.max = shown.length - 1;
    scrub.value = at;
    scrub.style.setProperty("--at", shown.length > 1 ? at / (shown.length - 1) : 0);
    scrub.setAttribute("aria-valuetext", `${at + 1} of ${shown.length}: ${sentence(step)}`);
    count.textContent = `${at + 1} / ${shown.length}`;
    brief.replaceChildren(el("span", {}, step.kind === "scene" ? "" : route(step)), " ", el("strong", {}, title(step)));
    goto.value = step.scene;
    if (!quiet) tell(step);
  };

  const go = (to, { push, quiet } = {}) => {
    to = Math.max(0, Math.min(to, shown.length - 1));
    if (live && to < shown.length - 1) follow(false);
    if (!shown.length || (to === at && !push)) return;
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
      return live && !live.over ? follow(true) : tell(current());
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
    if (way < 0) follow(false);
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
    const n = current()?.n ?? 0; // A run may have no steps yet.
    if (every.checked) fill();
    story.classList.toggle("all", every.checked);
    select(live?.following ? Infinity : n);
    show({ quiet: true });
  });
  // The name that outlasts a new recording, where the step has one.
  linker.addEventListener("click", async () => {
    const step = current(), lasting = rows.get(step.n).parentElement.id;
    const link = new URL(lasting ? "#" + lasting : address(step), location.href);
    try {
      await navigator.clipboard.writeText(link);
      linker.textContent = "Copied";
    } catch {
      history.replaceState(null, "", link);
      linker.textContent = "See the address";
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
    let id;
    try {
      id = decodeURIComponent(location.hash.slice(1));
    } catch {
      return; // No name of anything here.
    }
    const number = /^moment-(\d+)$/.exec(id);
    if (number) return steps[Math.min(+number[1], steps.length - 1)]?.n;
    const target = id && document.getElementById(id), a = target && target.querySelector(".row");
    if (a && acts.contains(a)) for (const [n, one] of rows) if (one === a) return n;
  };
  const followAddress = () => {
    if (live) return;
    const n = fromAddress();
    if (n === undefined) return;
    pause();
    const beyond = /^#moment-(\d+)$/.exec(location.hash);
    if (beyond && +beyond[1] > n) history.replaceState(null, "", address(steps[n]));
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

  const followHistory = () => {
    unnote();
    if (live || location.hash) return followAddress();
    // The plain address is where the reader began.
    pause();
    select(steps[0].n);
    show();
  };

  /* Recorded or live -------------------------------------------------------------------------------- */

  const scenes = () => {
    const starts = steps.filter((step) => step.kind === "scene");
    // Left alone where nothing is new: the reader may have it open.
    if (live && starts.length === goto.length) return;
    goto.replaceChildren(...starts.map((step) => el("option", { value: step.scene }, title(step))));
  };
  const stage = (list, made) => {
    pause();
    acts?.replaceWith(list);
    acts = list;
    every.checked = false;
    story.classList.remove("all");
    ({ lanes, steps, rows } = made);
    at = 0;
    scenes();
    select(0);
  };
  const load = (list) => {
    const rows = new Map();
    list.querySelectorAll(".row").forEach((a) => {
      a.tabIndex = -1;
      rows.set(+a.id.slice("moment-".length), a);
    });
    stage(list, { lanes: recorded.lanes, steps: recorded.steps, rows });
  };
  const recording = $(".acts");

  const sign = $(".live"), saying = $(".live .saying"), books = $(".live .books");
  const follower = $(".live .follow"), leaver = $(".live .leave");

  const say = (text) => {
    if (saying.textContent !== text) saying.textContent = text;
  };
  const showLive = () => {
    const { following, over, lost } = live;
    sign.dataset.state = over ? over.outcome : lost ? "lost" : following ? "following" : "paused";
    follower.hidden = following || !!over;
    root.toggleAttribute("data-following", following && !over);
    play.setAttribute("aria-label", (following && !over) || timer ? "Pause" : "Play");
    if (over?.outcome === "lost") say(over.error);
    else if (over) say(over.outcome === "paid" ? "The run is over: paid." : `The run is over: it failed. ${over.error || ""}`);
    else if (lost) say(lost);
    else if (!steps.length) say("Starting four nodes …");
    else say(following ? "Following the run as it happens." : "The run goes on; you are looking back.");
  };
  const follow = (on) => {
    if (!live || live.over || live.following === on) return;
    pause();
    live.following = on;
    if (on) {
      at = Math.max(0, shown.length - 1);
      show();
    }
    showLive();
  };

  // What a run was given, in words.
  const told = ({ amount_msat, min_fee_msat, proportional, trust, payer, recipient }) => [
    `${grouped(amount_msat)} msat`, `opening fee ${grouped(proportional)} ppm, at least ${grouped(min_fee_msat)} msat`,
    trust === "lsp" ? "the LSP trusts the client" : "the client trusts the LSP", `payer ${payer}`, `recipient ${recipient}`,
  ].join("; ") + ".";

  const BOOKS = [["payer_sent_msat", "The payer sent"], ["routing_fee_msat", "for forwarding"], ["opening_fee_msat", "for the channel"], ["recipient_received_msat", "the recipient received"]];

  // The page comes anew when the book is built again; the run goes on.
  const remember = (run) => {
    try {
      if (run) sessionStorage.setItem("guide-run", run);
      else sessionStorage.removeItem("guide-run");
    } catch { /* Forbidden: the reader can ask for it. */ }
  };
  const remembered = () => {
    try {
      return sessionStorage.getItem("guide-run");
    } catch {
      return null;
    }
  };

  // A browser tries again every few seconds.
  const GIVE_UP = 5;
  const watch = (run) => {
    live?.source.close();
    live = null;
    stage(el("ol", { className: "acts" }), { lanes: recorded.lanes, steps: [], rows: new Map() });
    const source = new EventSource("/live/events?run=" + encodeURIComponent(run));
    live = { source, following: true, over: null, lost: "" };
    remember(run);
    linker.disabled = true;
    sign.hidden = false;
    books.replaceChildren();
    now.replaceChildren();
    state.replaceChildren();
    brief.textContent = count.textContent = "";
    scrub.max = scrub.value = 0;
    scrub.removeAttribute("aria-valuetext");
    root.focus({ preventScroll: true });
    root.scrollIntoView();
    let due = 0;
    const refresh = () => {
      due = 0;
      if (!live || live.source !== source || !steps.length) return;
      const n = current()?.n ?? 0;
      scenes();
      select(live.following ? Infinity : n);
      show({ keep: !live.following, quiet: !live.following });
      showLive();
    };
    const end = (over) => {
      source.close();
      clearTimeout(due);
      refresh();
      remember(null);
      live.over = over;
      live.following = false;
    };
    let failures = 0;
    source.addEventListener("open", () => {
      failures = 0;
      live.lost = "";
      showLive();
    });
    source.addEventListener("header", (event) => {
      const header = JSON.parse(event.data);
      lanes = header.lanes;
      $(".live .told").textContent = told(header.setting);
    });
    source.addEventListener("step", (event) => {
      const step = JSON.parse(event.data);
      // After a lost connection some may come again.
      if (steps.length && step.n <= steps.at(-1).n) return;
      steps.push(step);
      place(step, steps.at(-2), off(states(step.n)));
      // Nodes are faster than eyes and screens.
      due ||= setTimeout(refresh, 100);
    });
    source.addEventListener("end", (event) => {
      end(JSON.parse(event.data));
      const sums = live.over.books;
      if (sums) books.replaceChildren(...BOOKS.map(([key, name]) => el("li", {}, name + " ", el("b", {}, grouped(sums[key]) + " msat"))));
      showLive();
    });
    source.addEventListener("error", () => {
      if (live?.source !== source) return;
      if (source.readyState === EventSource.CLOSED) {
        end({ outcome: "lost", error: "The server has forgotten this run. Start another." });
      } else if (++failures >= GIVE_UP) {
        end({ outcome: "lost", error: "The server is gone, and the run with it. Is cargo run still running?" });
      } else live.lost = "The connection to the server is lost; trying again. Is cargo run still running?";
      showLive();
    });
    showLive();
  };
  follower.addEventListener("click", () => {
    follow(true);
    root.focus({ preventScroll: true });
  });
  leaver.addEventListener("click", () => {
    remember(null);
    live?.source.close();
    live = null;
    sign.hidden = true;
    root.removeAttribute("data-following");
    linker.disabled = false;
    load(recording);
    show({ quiet: true });
    root.focus({ preventScroll: true });
  });

  /* Run it now ---------------------------------------------------------------------------------------- */

  const form = document.querySelector("form.run");
  if (form && "live" in document.documentElement.dataset) {
    const answer = form.querySelector(".answer"), submit = form.querySelector("[type=submit]");
    const reply = (...parts) => answer.replaceChildren(...parts);
    const clear = () => {
      form.querySelectorAll(".wrong").forEach((wrong) => { wrong.textContent = ""; });
      form.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
      reply();
    };
    const refuse = (name, error) => {
      const fields = form.querySelectorAll(`[name="${CSS.escape(name)}"]`);
      const wrong = document.getElementById(`run-${name}-wrong`);
      if (!fields.length || !wrong) return reply(error);
      wrong.textContent = upper(error) + ".";
      fields.forEach((field) => field.setAttribute("aria-invalid", "true"));
      ([...fields].find((field) => field.checked) || fields[0]).focus();
    };
    const offer = (text, run, button = "Follow it") => reply(text + " ", el("button", { type: "button", onclick: () => {
      clear();
      watch(run);
    } }, button));
    const gone = "The server does not answer. Is cargo run still running?";

    fetch("/live").then((response) => (response.ok ? response.json() : Promise.reject())).then(({ running, run, choices }) => {
      for (const [name, { min, max }] of Object.entries(choices)) {
        const hint = document.getElementById(`run-${name}-hint`);
        if (hint && max !== undefined) hint.textContent = `${grouped(min)} to ${grouped(max)}`;
      }
      if (run && run === remembered()) watch(run);
      else if (running) offer("A run is under way.", run);
      else if (run) offer("The last run is still here.", run, "Show it");
    }).catch(() => {
      submit.disabled = true;
      reply("This server cannot start nodes. The one of cargo run can.");
    });

    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      clear();
      const chosen = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, /_msat$|^prop/.test(name) ? value.replace(/[\s_]/g, "") : value]));
      submit.disabled = true;
      try {
        const response = await fetch("/live/run", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(chosen) });
        const { run, error, field } = await response.json();
        if (response.ok) watch(run);
        else if (response.status === 409 && run) offer(upper(error) + ".", run);
        else if (field) refuse(field, error);
        else reply(upper(error) + ".");
      } catch {
        reply(gone);
      }
      submit.disabled = false;
    });
  }

  load(recording);
  show({ quiet: true });
  root.dataset.ready = "";
  followAddress();
  // The browser follows the address on its own, too, once everything is there.
  addEventListener("load", () => {
    const step = current(); // A run that was followed before may have none yet.
    if (step) centre(rows.get(step.n));
    if (!live && fromAddress() !== undefined) root.scrollIntoView();
  });
  addEventListener("popstate", unnote);
  addEventListener("hashchange", followHistory);
})();
