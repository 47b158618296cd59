"use strict";
// Tables that sort by a click on a heading, and filters above them. Without JavaScript all rows are there.
(() => {
  const number = (text) => {
    const found = parseFloat(text.replace("−", "-").replace("∞", "Infinity"));
    return Number.isNaN(found) ? null : found;
  };
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.firstChild?.textContent?.trim() ?? "";
    return cell.dataset.value === undefined && cell.tagName === "TH" ? text : number(text) ?? text;
  };
  const empty = (v) => v === "" || v === "–";
  const sort = (table, column, order) => {
    const heads = [...table.tHead.rows[0].cells], bodies = [...table.tBodies];
    heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? order : "none"));
    const sign = order === "descending" ? -1 : 1;
    // Sorted rows are in no groups, so all move to the first.
    const rows = bodies.flatMap((body) => [...body.rows]).map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => {
      // What has no figure comes last, whichever way the table is sorted.
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      const numbers = typeof a === "number" && typeof b === "number";
      return sign * (numbers ? (a === b ? 0 : a - b) : String(a).localeCompare(String(b), "en", { numeric: true }));
    });
    bodies[0].append(...rows.map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      const first = head.dataset.first ?? "ascending", second = first === "ascending" ? "descending" : "ascending";
      button.addEventListener("click", () => sort(table, column, head.ariaSort === first ? second : first));
    });
    const start = table.dataset.sort;
    if (start) sort(table, +start, table.tHead.rows[0].cells[+start].dataset.first ?? "ascending");
  }
  for (const form of document.querySelectorAll("form[data-filters]")) {
    const table = document.getElementById(form.dataset.filters);
    const count = document.querySelector(`output[data-count="${table.id}"]`);
    const picks = [...form.querySelectorAll("[data-key]")];
    const filter = () => {
      const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
      let shown = 0;
      for (const row of rows) {
        row.hidden = !picks.every(({ value, dataset: { key }, type }) => value === ""
          || (type === "search" ? row.textContent.toLowerCase().includes(value.toLowerCase()) : row.dataset[key] === value));
        shown += !row.hidden;
      }
      if (count) count.textContent = `${shown} of ${rows.length} rows`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }
})();
