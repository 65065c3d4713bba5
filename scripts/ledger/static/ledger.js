// Two comforts, both done without: pages follow the books, and the form for a
// voucher adds up while one types.
"use strict";

// A live page is fetched anew when a voucher is posted, and its content put in
// the place of the old. While the page is out of sight it does not listen.
function followBooks(main) {
  const told = document.getElementById("told");
  let source = null;
  let busy = false;
  let again = false;
  let hiding = 0;

  async function refresh() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("main");
      if (answer.ok && fresh && !typing()) {
        const known = Number(main.dataset.newest);
        main.dataset.newest = fresh.dataset.newest;
        main.replaceChildren(...fresh.childNodes);
        markNew(known);
      }
    } catch {
      // The event stream comes back by itself, and tells again.
    }
    busy = false;
    if (again) {
      again = false;
      refresh();
    }
  }

  // typing reports whether a replacement would take a field from someone's hands.
  function typing() {
    const at = document.activeElement;
    return main.contains(at) && /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName);
  }

  function markNew(known) {
    for (const row of main.querySelectorAll("[data-voucher]")) {
      row.classList.toggle("fresh", Number(row.dataset.voucher) > known);
    }
  }

  function listen() {
    const query = new URLSearchParams({ after: main.dataset.newest });
    if (main.dataset.company) query.set("company", main.dataset.company);
    source = new EventSource("/api/events?" + query);
    source.addEventListener("voucher", (event) => {
      const voucher = JSON.parse(event.data);
      told.textContent = `Voucher ${voucher.number} was posted: ${voucher.text}`;
      told.hidden = false;
      clearTimeout(hiding);
      hiding = setTimeout(() => (told.hidden = true), 8000);
      refresh();
    });
  }

  function mind() {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      listen();
    }
  }
  document.addEventListener("visibilitychange", mind);
  addEventListener("pagehide", () => {
    source?.close();
    source = null;
  });
  addEventListener("pageshow", mind);
  mind();
}

// The sums of the form, in cents; an amount that cannot be read counts as none.
function addUp(form) {
  const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2 });
  const show = (cents) => money.format(cents / 100).replace("-", "−");
  const balance = document.getElementById("balance");

  function cents(text) {
    let s = text.trim();
    const at = Math.max(s.lastIndexOf("."), s.lastIndexOf(","));
    let decimals = "";
    if (at >= 0 && (s[at] === "." || s.length - at - 1 !== 3)) {
      decimals = s.slice(at + 1);
      s = s.slice(0, at);
    }
    s = s.replace(/[,. '’\u00a0]/g, "");
    return /^\d{1,12}$/.test(s) && /^\d{0,2}$/.test(decimals) ? Number(s + (decimals + "00").slice(0, 2)) : 0;
  }

  function sum(name) {
    let total = 0;
    for (const input of form.querySelectorAll(`input[name="${name}"]`)) total += cents(input.value);
    return total;
  }

  function update() {
    const debit = sum("debit");
    const credit = sum("credit");
    document.getElementById("sum-debit").textContent = show(debit);
    document.getElementById("sum-credit").textContent = show(credit);
    balance.className = debit === credit ? "even" : "odd";
    balance.textContent =
      debit === credit ? (debit ? "Balanced" : "") : `${show(Math.abs(debit - credit))} more ${debit > credit ? "debit" : "credit"}`;
  }
  form.addEventListener("input", update);
  update();
}

const main = document.getElementById("main");
if (main.dataset.newest !== undefined) followBooks(main);
const form = document.getElementById("voucher");
if (form) addUp(form);
document.getElementById("flaws")?.focus();
