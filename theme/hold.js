"use strict";
// The hold page's form: what the table below it has from the crate, for the reader's own numbers.
(() => {
  const form = document.getElementById("hold");
  if (!form) return;
  // The most of each: with them nothing is too large for a number here, or for the crate's.
  const MOST = { height: 100000000, hop: 65535, shadow: 432, extra: 65535, lease: 65535, left: 1000000 };
  const NAMES = Object.keys(MOST);
  const $ = (name) => document.getElementById("hold-" + name);
  const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u00a0");

  const told = (minutes) => {
    const parts = [[Math.floor(minutes / 1440), "d"], [Math.floor(minutes / 60) % 24, "h"], [minutes % 60, "min"]];
    return parts.filter(([number]) => number).map(([number, unit]) => number + "\u00a0" + unit).join(" ") || "0\u00a0min";
  };

  // As `Hold` and `Absence` of the crate have it.
  const answer = (online, { height, hop, shadow, extra, lease, left }) => {
    const most = 1008 - (42 + 2 + lease + hop + 80);
    const noRoute = !online && extra > most;
    const expiry = height + 1 + 42 + 2 + extra + shadow, back = expiry - 42;
    const minutes = online ? 7 * 1440 : (back - height) * 10;
    let away = told(minutes), ends = online ? "the payer, after seven days" : "the expiry of the held HTLC";
    if (noRoute) [away, ends] = ["not at all", "no route: more than 1\u00a0008 blocks"];
    else if (left * 60 <= minutes) [away, ends] = [told(left * 60), "the lease"];
    const ofHold = (block) => (online || noRoute ? "—" : grouped(block));
    return {
      away,
      ends,
      back: ofHold(back),
      window: ofHold(back - height),
      given: ofHold(expiry + lease - 39),
      most: most < 0 ? "none" : grouped(most),
    };
  };

  // A field's number, or what is wrong with it.
  const read = (name) => {
    const text = $(name).value.replace(/[\s_'’]/g, "");
    if (!text) return { wrong: "Type a number." };
    if (!/^\d+$/.test(text)) return { wrong: "A whole number, without a sign or a unit." };
    const number = Number(text);
    return number > MOST[name] ? { wrong: "At most " + grouped(MOST[name]) + "." } : { number };
  };

  const compute = () => {
    const online = $("payer").value === "online";
    const fields = Object.fromEntries(NAMES.map((name) => [name, read(name)]));
    for (const name of NAMES) {
      const wrong = fields[name].wrong || "", input = $(name), message = $(name + "-wrong");
      if (message.textContent !== wrong) message.textContent = wrong;
      if (wrong) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
    let told = { away: "—", ends: "see the field that is marked", back: "—", window: "—", given: "—", most: "—" };
    if (NAMES.every((name) => !fields[name].wrong)) {
      told = answer(online, Object.fromEntries(NAMES.map((name) => [name, fields[name].number])));
    }
    for (const [name, text] of Object.entries(told)) {
      if ($(name).textContent !== text) $(name).textContent = text;
    }
  };

  form.addEventListener("input", compute);
  form.addEventListener("submit", (event) => event.preventDefault());
  // A number that was left is set in groups.
  form.addEventListener("change", ({ target }) => {
    if (!(target.name in MOST)) return;
    const { number, wrong } = read(target.name);
    if (!wrong) target.value = grouped(number);
  });
  for (const button of document.querySelectorAll(".hold caption button")) {
    button.addEventListener("click", () => {
      const rows = button.closest("table").querySelectorAll("tr[data-extra]"), { dataset } = rows[1];
      $("payer").value = dataset.payer;
      for (const name of NAMES) $(name).value = grouped(dataset[name]);
      compute();
      $("extra").focus();
      form.scrollIntoView({ block: "nearest" });
    });
  }
  // A browser may have kept what was typed before.
  compute();
})();
