"use strict";
// The fee page's form: what the table below it has from the crate, for the reader's own numbers.
(() => {
  const form = document.getElementById("fees");
  if (!form) return;
  const MOST = 2n ** 64n - 1n, MOST_SHARE = 2n ** 32n - 1n, MILLION = 1000000n;
  const NAMES = ["min-fee", "share", "smallest", "largest", "size"];
  const $ = (name) => document.getElementById("fees-" + name);

  // Thin spaces between groups, as the pages have them.
  const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
  const up = (number, by) => (number + by - 1n) / by;
  const larger = (...numbers) => numbers.reduce((a, b) => (a > b ? a : b));

  // bLIP-52, "Computing the opening_fee", in 64 bits as the crate has it.
  const openingFee = (terms, size) => {
    const share = size * terms.share;
    return share > MOST ? null : larger(up(share, MILLION), terms.minFee);
  };

  const smallestPayment = (terms) => {
    const kept = MILLION - terms.share;
    if (kept <= 0n || terms.minFee === MOST) return null;
    const size = larger(terms.smallest, terms.minFee + 1n, up(MILLION, kept));
    return size > terms.largest || openingFee(terms, size) === null ? null : size;
  };

  const answer = (terms, size) => {
    const none = (gets, applies) => ({ fee: "—", gets, applies });
    // A menu may begin at 0; no payment does.
    if (size === 0n && terms.smallest === 0n) return none("nothing: below the smallest payment, 1 msat", "not for sale");
    if (size < terms.smallest) return none("nothing: below the menu’s smallest payment", "not for sale");
    if (size > terms.largest) return none("nothing: above the menu’s largest payment", "not for sale");
    const fee = openingFee(terms, size);
    if (fee === null) return none("nothing: 64 bits do not hold the product", "no answer");
    const share = size * terms.share;
    return {
      fee: grouped(fee),
      gets: fee < size ? grouped(size - fee) : "nothing: the fee takes all of it",
      applies: share <= terms.minFee * MILLION ? "the minimum" : share % MILLION ? "the share, rounded up" : "the share",
    };
  };

  // A field's number, or what is wrong with it.
  const read = (name) => {
    const text = $(name).value.replace(/[\s_'’]/g, "");
    const most = name === "share" ? MOST_SHARE : MOST;
    if (!text) return { wrong: "Type a number." };
    if (!/^\d+$/.test(text)) return { wrong: "A whole number, without a sign or a unit." };
    const number = BigInt(text);
    return number > most ? { wrong: "At most " + grouped(most) + "." } : { number };
  };

  const compute = () => {
    const fields = Object.fromEntries(NAMES.map((name) => [name, read(name)]));
    const { smallest, largest } = fields;
    if (smallest.number > largest.number) largest.wrong = "Not less than the smallest payment.";
    for (const name of NAMES) {
      const wrong = fields[name].wrong || "", input = $(name), message = $(name + "-wrong");
      if (message.textContent !== wrong) message.textContent = wrong;
      if (wrong) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
    let told = { fee: "—", applies: "see the field that is marked", gets: "—", works: "—" };
    if (NAMES.every((name) => !fields[name].wrong)) {
      const terms = {
        minFee: fields["min-fee"].number,
        share: fields.share.number,
        smallest: smallest.number,
        largest: largest.number,
      };
      const works = smallestPayment(terms);
      told = { ...answer(terms, fields.size.number), works: works === null ? "none" : grouped(works) + "\u00a0msat" };
    }
    for (const [name, text] of Object.entries(told)) {
      if ($(name).textContent !== text) $(name).textContent = text;
    }
  };

  form.addEventListener("input", compute);
  form.addEventListener("submit", (event) => event.preventDefault());
  // A number that was left is set in groups.
  form.addEventListener("change", ({ target }) => {
    const { number, wrong } = read(target.name);
    if (!wrong) target.value = grouped(number);
  });
  for (const button of document.querySelectorAll(".fees caption button")) {
    button.addEventListener("click", () => {
      const table = button.closest("table"), { minFee, share, smallest, largest } = table.dataset;
      const { size } = table.querySelector("tr[data-applies^='the ']").dataset;
      [minFee, share, smallest, largest, size].forEach((number, at) => { $(NAMES[at]).value = grouped(number); });
      compute();
      $("size").focus();
      form.scrollIntoView({ block: "nearest" });
    });
  }
  // A browser may have kept what was typed before.
  compute();
})();
