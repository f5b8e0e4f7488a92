"use strict";
// A table of results that can be sorted, searched and filtered; `data.columns` says what its rows hold.
const page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ROWS_A_PAGE = 50;
  const byId = (id) => document.getElementById(id);

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

  const column = (name) => data.columns.findIndex((one) => one.name === name);
  const text = (row, at) => data.columns[at].texts && row[at] !== null ? data.columns[at].texts[row[at]] : row[at];

  // what: the rows, in words. filters: the id of a select element by the column whose values it offers.
  // beside: by column, what else stands in a cell of a row. The chips choose a verdict.
  function table({ what, filters, beside, empty }) {
    const VERDICT = column("verdict");
    const texts = data.columns.flatMap((one, at) => one.texts ? [at] : []);
    const state = { key: 0, down: false, verdict: "", text: "" };
    const selects = Object.entries(filters).map(([name, id]) => [column(name), byId(id)]);
    let matching = data.rows;

    function select() {
      const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
      matching = data.rows.filter((row) => {
        if (state.verdict !== "" && row[VERDICT] !== Number(state.verdict)) return false;
        if (selects.some(([at, node]) => node && node.value !== "" && row[at] !== Number(node.value))) return false;
        return words.every((word) => /^\d+$/.test(word) && !data.columns[0].texts ? String(row[0]).startsWith(word)
          : texts.some((at) => String(text(row, at) ?? "").toLowerCase().includes(word)));
      });
      const sign = state.down ? -1 : 1;
      const absent = (value) => value === null || value === "";
      const order = new Map(data.rows.map((row, at) => [row, at]));
      matching.sort((a, b) => {
        const x = text(a, state.key), y = text(b, state.key);
        if (absent(x) || absent(y)) return absent(x) - absent(y) || order.get(a) - order.get(b);  // last, either way
        return (x < y ? -sign : x > y ? sign : 0) || order.get(a) - order.get(b);
      });
    }
    function cell(row, at) {
      const { name, texts: words, digits, wide } = data.columns[at], value = text(row, at);
      const shown = value === null ? "–" : digits !== null && words === null ? value.toFixed(digits) : String(value);
      const node = element("td", { class: [words ? "" : "n", wide ? "wide-only" : ""].join(" ").trim() });
      if (at === VERDICT || name.endsWith("verdict")) node.append(element("span", { class: `dot ${value}` }));
      node.append(shown);
      if (words && wide) node.title = shown;
      const more = beside[name]?.(row);
      if (more) node.append(" ", more);
      return node;
    }
    function show(number) {
      const from = number * ROWS_A_PAGE;
      const rows = matching.slice(from, from + ROWS_A_PAGE).map((row) => element("tr", {}, ...row.map((_, at) => cell(row, at))));
      if (!rows.length) rows.push(element("tr", {}, element("td", { class: "empty", colSpan: data.columns.length }, empty)));
      byId("rows").replaceChildren(...rows);
      byId("status").textContent = `${what} ` + pager(byId("table-pager"), what.toLowerCase(), number, ROWS_A_PAGE, matching.length, show);
    }
    function refresh() { select(); show(0); }

    byId("table").tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const key = Number(button.dataset.key);
      state.down = key === state.key ? !state.down : data.columns[key].digits !== null;
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
    for (const [, node] of selects) node?.addEventListener("change", refresh);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    refresh();
  }
  return { data, byId, element, pager, column, table };
})();
