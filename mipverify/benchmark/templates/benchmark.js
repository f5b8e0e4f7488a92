page.table({
  what: "Instances",
  filters: { benchmark: "benchmark" },
  beside: {},
  empty: "No instance matches. Clear the search or choose another verdict.",
});
