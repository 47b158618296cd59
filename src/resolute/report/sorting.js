"use strict";
// Tables that sort by a click on a heading, and boxes above them to choose rows by. Without JavaScript all rows are there.
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
    table.classList.add("sorted");
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
  // Boxes above a long table: one to find text, and one for every column by which rows can be chosen.
  const shown = (cell) => cell.firstChild?.textContent?.trim() ?? "";
  for (const table of document.querySelectorAll("table[data-filters]")) {
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    const form = document.createElement("form"), count = document.createElement("output");
    const find = Object.assign(document.createElement("input"), { type: "search", placeholder: "part of a row" });
    Object.assign(form, { className: "filters", autocomplete: "off" });
    const labelled = (words, box) => {
      const label = document.createElement("label");
      label.append(words, " ", box);
      form.append(label);
      return box;
    };
    labelled("Find", find);
    const picks = Object.entries(JSON.parse(table.dataset.filters)).map(([column, first]) => {
      const texts = [...new Set(rows.map((row) => shown(row.cells[column])))].filter((text) => text);
      const options = [new Option("all", ""), ...texts.map((text) => new Option(text, text, false, text === first))];
      const name = shown(table.tHead.rows[0].cells[column].querySelector("button"));
      const box = document.createElement("select");
      box.append(...options);
      return [column, labelled(name[0].toUpperCase() + name.slice(1), box)];
    });
    const filter = () => {
      const part = find.value.toLowerCase();
      for (const row of rows) {
        row.hidden = !row.textContent.toLowerCase().includes(part)
          || picks.some(([column, { value }]) => value && shown(row.cells[column]) !== value);
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.append(count);
    table.closest(".scroll").before(form);
    filter();
  }
  const boxes = new ResizeObserver((entries) => {
    for (const { target } of entries) target.classList.toggle("wide", target.scrollWidth > target.clientWidth + 1);
  });
  for (const box of document.querySelectorAll(".scroll")) boxes.observe(box);
})();
