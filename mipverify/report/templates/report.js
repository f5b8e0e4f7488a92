(() => {
  const { byId, element, data, pager } = page;
  const CARDS_A_PAGE = 12;
  const called = (label) => data.names[label] ?? String(label);
  const shown = new Map(data.gallery.map((entry, at) => [entry.index, at]));

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
      picture(entry.original, `Sample ${entry.index}, label ${called(entry.label)}`, "label ", element("b", {}, called(entry.label))),
      picture(entry.change, `Signed change, at most ${entry.largest}`, `± ${entry.largest}`),
      picture(entry.adversarial, `Adversarial input, classified as ${called(entry.predicted)}`, "seen as ", element("b", { class: "wrong" }, called(entry.predicted))));
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
    const arrow = data.kind === "image" ? `at most ± ${entry.largest}` : `label ${called(entry.label)}, seen as ${called(entry.predicted)}`;
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

  const INDEX = page.column("index");
  page.table({
    what: "Samples",
    filters: { label: "label" },
    beside: { verdict: (row) => shown.has(row[INDEX]) && element("button", {
      type: "button", class: "link", "aria-label": `Show the counterexample of sample ${row[INDEX]}`,
      onclick: () => showSample(row[INDEX]) }, "show") },
    empty: "No sample matches. Clear the search or choose another verdict.",
  });
  showGallery(0);
})();
