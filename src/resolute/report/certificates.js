"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const list = $("images"), items = [...list.children];
  const numbers = new Set(["order", "score", "width", "safe"]);

  const arrange = () => {
    const key = $("sort").value, sign = $("down").checked ? -1 : 1, wanted = $("find").value.trim().toLowerCase();
    const value = (item) => (numbers.has(key) ? parseFloat(item.dataset[key]) : item.dataset[key].toLowerCase());
    // What has no figure comes last, whichever way the list is sorted.
    const missing = (v) => Number.isNaN(v);
    items.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return sign * (x < y ? -1 : x > y ? 1 : a.dataset.order - b.dataset.order);
    });
    list.replaceChildren(...items);
    let shown = 0;
    for (const item of items) {
      item.hidden = !item.dataset.name.toLowerCase().includes(wanted);
      shown += !item.hidden;
    }
    $("count").textContent = `${shown} of ${items.length}`;
  };
  for (const id of ["find", "sort", "down"]) $(id).addEventListener("input", arrange);
})();
