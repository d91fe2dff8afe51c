"use strict";
(() => {
  const NOTHING = "#-"; // no element has this name: no exchange is open then, and the page does not scroll
  const ARTICLE = /<article id="([^"]+)"[^>]*>(.*?)<\/article>/gs; // no text on the page has a "<" of its own
  let opener = null; // what gets the focus back when the exchange is closed

  // The details of all exchanges follow this script. To make elements of them takes longer than the rest of the page.
  // So the parser takes them as one text, and an article has its elements from the time when it is opened or printed.
  // Where no script runs, they are elements at once.
  const articles = new Map(Array.from(document.querySelectorAll(".rows a"), emptyArticle));
  document.currentScript.before(...articles.values());
  document.write("<plaintext hidden>");
  const details = document.querySelector("plaintext");

  function emptyArticle(link) {
    const article = document.createElement("article");
    article.id = link.hash.slice(1);
    article.className = "exchange";
    article.tabIndex = -1;
    article.setAttribute("aria-label", `Exchange ${article.id.replace("exchange-", "")}`);
    return [article.id, article];
  }

  function fill(isWanted) {
    for (const [, name, inside] of details.textContent.matchAll(ARTICLE)) {
      const article = articles.get(name);
      if (isWanted(article) && article.firstChild === null) {
        article.innerHTML = inside;
      }
    }
  }

  function fillAll() {
    fill(() => true);
  }

  function openedExchange() {
    return articles.get(location.hash.slice(1)) ?? null;
  }

  function showOpened() {
    for (const marked of document.querySelectorAll("main .open")) {
      marked.classList.remove("open");
    }
    const exchange = openedExchange();
    document.body.classList.toggle("with-details", exchange !== null);
    if (exchange !== null) {
      fill((article) => article === exchange);
      for (const link of document.querySelectorAll(`main a[href="#${exchange.id}"]`)) {
        (link.closest("tr, li") ?? link).classList.add("open");
      }
      exchange.scrollTop = 0;
      exchange.focus({ preventScroll: true });
    } else if (opener !== null) {
      opener.focus({ preventScroll: true });
      opener = null;
    }
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest('main a[href^="#exchange-"]');
    const row = event.target.closest(".rows tbody tr");
    opener = link ?? row?.querySelector("a") ?? opener;
    if (link === null && row !== null && getSelection().isCollapsed) {
      location.hash = opener.hash;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && openedExchange() !== null) {
      location.hash = NOTHING;
    }
  });
  addEventListener("hashchange", showOpened);
  document.addEventListener("DOMContentLoaded", showOpened);

  const print = matchMedia("print");
  function showPrinted() {
    if (print.matches) {
      fillAll();
    }
  }
  addEventListener("beforeprint", fillAll);
  print.addEventListener("change", showPrinted);
  document.addEventListener("DOMContentLoaded", showPrinted);

  const filters = document.querySelector(".filters");
  const [service, caller, path, status, failed] = ["service", "caller", "path", "status", "failed"].map((name) =>
    filters.querySelector(`[name=${name}]`),
  );
  const told = filters.querySelector("output");
  let rows = null; // of the table, from the first filter on

  function readRows() {
    const lanes = document.querySelectorAll(".lanes li");
    return Array.from(document.querySelectorAll(".rows tbody tr"), (row, place) => ({
      row,
      lane: lanes[place],
      path: row.querySelector("a").textContent.toLowerCase(),
    }));
  }

  function isChosen(choice, value) {
    return choice.value === "" || choice.value === `=${value}`;
  }

  function filter() {
    rows ??= readRows();
    const part = path.value.toLowerCase();
    let shown = 0;
    for (const each of rows) {
      const { service: callee, caller: from, status: kind, failed: hasFailed } = each.row.dataset;
      const fits =
        isChosen(service, callee) &&
        isChosen(caller, from) &&
        isChosen(status, kind) &&
        each.path.includes(part) &&
        (!failed.checked || hasFailed !== undefined);
      each.row.hidden = each.lane.hidden = !fits;
      shown += fits;
    }
    const all = `${rows.length} ${rows.length === 1 ? "exchange" : "exchanges"}`;
    document.body.classList.toggle("filtered", shown < rows.length);
    told.textContent = shown === rows.length ? all : `${shown} of ${all}`;
  }

  filters.addEventListener("input", filter);
  filters.hidden = false;
  if (failed.checked || [service, caller, path, status].some((field) => field.value !== "")) {
    filter(); // a browser may have kept what was chosen before a reload
  }
})();
