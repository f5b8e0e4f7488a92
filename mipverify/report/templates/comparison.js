(() => {
  const { byId, element, data, pager } = page;
  const CARDS_A_PAGE = 12;
  const shown = new Map(data.gallery.map((entry, at) => [entry.index, at]));

  function picture(source, alt, ...caption) {
    return element("figure", {}, element("img", { src: source, alt, decoding: "async" }), element("figcaption", {}, ...caption));
  }
  function card(entry) {
    const classes = entry.first === entry.second ? `class ${entry.first} in both` : `class ${entry.first} in the first, ${entry.second} in the second`;
    return element("article", { class: "card", id: `sample-${entry.index}`, tabIndex: -1 },
      element("h3", {}, element("b", {}, `Sample ${entry.index}`), element("span", {}, classes)),
      element("div", { class: "triple" },
        picture(entry.original, `Sample ${entry.index}`, "original"),
        picture(entry.change, "Signed change", "change"),
        picture(entry.worst, `Input at which output ${entry.output} differs by ${entry.difference}`,
          `output ${entry.output} differs by `, element("b", {}, String(entry.difference)))));
  }
  function showGallery(number) {
    const from = number * CARDS_A_PAGE;
    byId("cards").replaceChildren(...data.gallery.slice(from, from + CARDS_A_PAGE).map(card));
    pager(byId("gallery-pager"), "worst inputs", number, CARDS_A_PAGE, data.gallery.length, showGallery);
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
    filters: {},
    beside: { verdict: (row) => shown.has(row[INDEX]) && element("button", {
      type: "button", class: "link", "aria-label": `Show the worst input of sample ${row[INDEX]}`,
      onclick: () => showSample(row[INDEX]) }, "show") },
    empty: "No sample matches. Clear the search or choose another verdict.",
  });
  if (data.gallery.length) {
    byId("gallery").hidden = false;
    showGallery(0);
  }
})();
