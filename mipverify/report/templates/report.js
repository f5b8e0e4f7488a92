"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const INDEX = 0, LABEL = 1, VERDICT = 3, STAGE = 4, SECONDS = 5, MARGIN = 6, REASON = 8;
  const ROWS_A_PAGE = 50, CARDS_A_PAGE = 12;
  const byId = (id) => document.getElementById(id);
  const shown = new Map(data.gallery.map((entry, at) => [entry.index, at]));

  // Text only ever enters the page as text: names and reasons may hold anything.
  function element(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties ?? {})) {
      if (name === "class") node.className = value; else if (name.includes("-")) node.setAttribute(name, value); else node[name] = value;
    }
    node.append(...children);
    return node;
  }

  function pager(place, what, page, perPage, count, go) {
    const pages = Math.max(1, Math.ceil(count / perPage));
    const from = count ? page * perPage + 1 : 0, to = Math.min(count, (page + 1) * perPage);
    const text = `${from.toLocaleString("en")}–${to.toLocaleString("en")} of ${count.toLocaleString("en")}`;
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.step : null;
    const button = (label, step, sign) => element("button", {
      type: "button", disabled: page + step < 0 || page + step >= pages, "aria-label": `${label} ${what}`,
      "data-step": String(step), onclick: () => go(page + step),
    }, sign);
    place.replaceChildren(element("span", {}, text), button("Previous", -1, "←"), button("Next", 1, "→"));
    if (focused) {
      const again = place.querySelector(`[data-step="${focused}"]`);
      (again.disabled ? place.querySelector("button:not(:disabled)") : again)?.focus();
    }
    return text;
  }

  // ---- counterexamples ----
  const SVG = "http://www.w3.org/2000/svg";
  function drawn(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }
  function picture(source, alt, ...caption) {
    return element("figure", {}, element("img", { src: source, alt, decoding: "async" }), element("figcaption", {}, ...caption));
  }
  function pictures(entry) {
    return element("div", { class: "triple" },
      picture(entry.original, `Sample ${entry.index}, label ${entry.label}`, "label ", element("b", {}, String(entry.label))),
      picture(entry.change, `Signed change, at most ${entry.largest}`, `± ${entry.largest}`),
      picture(entry.adversarial, `Adversarial input, classified as ${entry.predicted}`, "seen as ", element("b", { class: "wrong" }, String(entry.predicted))));
  }
  function values(entry) {
    const body = element("tbody");
    for (const [at, original, changed] of entry.values) {
      const change = changed - original, half = entry.largest ? 50 * Math.abs(change) / entry.largest : 0;
      const bar = drawn("svg", { class: "delta", "aria-hidden": "true" });
      bar.append(drawn("line", { x1: "50%", x2: "50%", y1: "0", y2: "100%" }),
        drawn("rect", { class: change < 0 ? "less" : "more", x: `${change < 0 ? 50 - half : 50}%`, width: `${half}%`, y: "10%", height: "80%" }));
      body.append(element("tr", {}, element("th", { scope: "row" }, String(at)), element("td", { class: "n" }, original.toPrecision(4)),
        element("td", { class: "n" }, changed.toPrecision(4)), element("td", {}, bar)));
    }
    const head = element("tr", {}, ...["Input", "Original", "Adversarial", "Change"].map((name, at) =>
      element("th", { scope: "col", class: at === 1 || at === 2 ? "n" : "" }, name)));
    const parts = [element("table", {}, element("thead", {}, head), body)];
    if (entry.of > entry.values.length) parts.push(element("p", { class: "note" }, `The ${entry.values.length} of ${entry.of} values that change most.`));
    return element("div", {}, ...parts);
  }
  function card(entry) {
    const arrow = data.kind === "image" ? `at most ± ${entry.largest}` : `label ${entry.label}, seen as ${entry.predicted}`;
    return element("article", { class: "card", id: `sample-${entry.index}`, tabIndex: -1 },
      element("h3", {}, element("b", {}, `Sample ${entry.index}`), element("span", {}, data.kind === "image" ? "" : arrow)),
      data.kind === "image" ? pictures(entry) : values(entry));
  }
  function showGallery(page) {
    if (!byId("cards")) return;
    const from = page * CARDS_A_PAGE;
    byId("cards").replaceChildren(...data.gallery.slice(from, from + CARDS_A_PAGE).map(card));
    pager(byId("gallery-pager"), "counterexamples", page, CARDS_A_PAGE, data.gallery.length, showGallery);
  }
  function showSample(index) {
    showGallery(Math.floor(shown.get(index) / CARDS_A_PAGE));
    const target = byId(`sample-${index}`);
    target.scrollIntoView({ block: "center" });
    target.focus({ preventScroll: true });
  }

  // ---- table ----
  const state = { key: INDEX, down: false, page: 0, verdict: "", label: "", text: "" };
  let matching = data.rows;
  const sortable = (row) => state.key === VERDICT ? data.verdicts[row[VERDICT]] : state.key === STAGE ? data.stages[row[STAGE]] : row[state.key];

  function select() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    matching = data.rows.filter((row) => {
      if (state.verdict !== "" && row[VERDICT] !== Number(state.verdict)) return false;
      if (state.label !== "" && row[LABEL] !== Number(state.label)) return false;
      return words.every((word) => /^\d+$/.test(word) ? String(row[INDEX]).startsWith(word)
        : `${data.verdicts[row[VERDICT]]} ${data.stages[row[STAGE]]} ${row[REASON]}`.toLowerCase().includes(word));
    });
    const sign = state.down ? -1 : 1;
    matching.sort((a, b) => {
      const x = sortable(a), y = sortable(b);
      if (x === null || y === null || x === "" || y === "") {  // what is not there comes last, either way
        const missing = (x === null || x === "") - (y === null || y === "");
        return missing || a[INDEX] - b[INDEX];
      }
      return (x < y ? -sign : x > y ? sign : 0) || a[INDEX] - b[INDEX];
    });
  }
  function cell(text, name) {
    return element("td", { class: name }, text === null ? "–" : String(text));
  }
  function tableRow(row) {
    const verdict = data.verdicts[row[VERDICT]], index = row[INDEX];
    const name = element("td", {}, element("span", { class: `dot ${verdict}` }), verdict);
    if (shown.has(index)) name.append(" ", element("button", { type: "button", class: "link", "aria-label": `Show the counterexample of sample ${index}`, onclick: () => showSample(index) }, "show"));
    const reason = cell(row[REASON], "wide-only");
    reason.title = row[REASON];
    return element("tr", {}, cell(index, "n"), cell(row[LABEL], "n"), cell(row[2], "n"), name, cell(data.stages[row[STAGE]], ""),
      cell(row[SECONDS].toFixed(3), "n"), cell(row[MARGIN], "n wide-only"), cell(row[7], "n wide-only"), reason);
  }
  function showTable(page) {
    state.page = page;
    const from = page * ROWS_A_PAGE;
    const rows = matching.slice(from, from + ROWS_A_PAGE).map(tableRow);
    if (!rows.length) rows.push(element("tr", {}, element("td", { class: "empty", colSpan: 9 }, "No sample matches. Clear the search or choose another verdict.")));
    byId("rows").replaceChildren(...rows);
    byId("status").textContent = "Samples " + pager(byId("table-pager"), "samples", page, ROWS_A_PAGE, matching.length, showTable);
  }
  function refresh() { select(); showTable(0); }

  byId("table").tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const key = Number(button.dataset.key);
    state.down = key === state.key ? !state.down : key === SECONDS;
    state.key = key;
    for (const head of byId("table").tHead.rows[0].cells) head.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", state.down ? "descending" : "ascending");
    refresh();
  });
  byId("chips").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    state.verdict = button.dataset.verdict;
    for (const other of byId("chips").children) other.setAttribute("aria-pressed", String(other === button));
    refresh();
  });
  byId("search").addEventListener("input", () => { state.text = byId("search").value; refresh(); });
  byId("label").addEventListener("change", () => { state.label = byId("label").value; refresh(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());

  showGallery(0);
  refresh();
})();
