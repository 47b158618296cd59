"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const report = JSON.parse($("report-data").textContent);
  const config = { displayModeBar: false, displaylogo: false, responsive: true };
  const drawn = new Set();

  // Charts take their colours and their font from the page, so that they follow it into the dark.
  const theme = () => {
    const css = getComputedStyle(document.body);
    const ink = css.getPropertyValue("--soft").trim(), line = css.getPropertyValue("--line").trim();
    const axis = (name) => ({ [`${name}.gridcolor`]: line, [`${name}.linecolor`]: line, [`${name}.tickcolor`]: line,
      [`${name}.title.font.size`]: 13 });
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": ink, "font.size": 13,
      "font.family": css.fontFamily, ...axis("xaxis"), ...axis("yaxis") };
  };
  // The plotting library is packed in the page, which would be twice as large without. Words and tables do not wait for it.
  const packed = $("plotly");
  const unpacked = packed ? (async () => {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  })() : Promise.resolve();
  unpacked.catch(() => {
    for (const element of document.querySelectorAll(".chart")) element.textContent = "This browser is too old to draw the chart.";
  });
  const draw = async (element, figure) => {
    drawn.add(element);
    await unpacked;
    if (!drawn.has(element)) return;
    const { data, layout } = structuredClone(figure);
    await Plotly.newPlot(element, data, layout, config);
    if (drawn.has(element)) Plotly.relayout(element, theme());
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    unpacked.then(() => { for (const element of drawn) Plotly.relayout(element, theme()); });
  });
  for (const [id, figure] of Object.entries(report.charts)) draw($(id), figure);
  for (const pick of document.querySelectorAll("select[data-frames]")) {
    const ids = pick.dataset.frames.split(" ");
    pick.addEventListener("change", () => { for (const id of ids) draw($(id), report.frames[id][pick.value]); });
  }
  if (!report.cases.length) return;

  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const fill = (select, labels, wanted) => {
    select.replaceChildren(...labels.map((label, index) => new Option(label, index)));
    select.selectedIndex = Math.max(0, labels.indexOf(wanted));
    return labels[select.selectedIndex];
  };
  const chosen = (select) => select.selectedOptions[0]?.text;
  const named = (view) => (view.group ? `${view.group}: ${view.label}` : view.label);

  const kept = (item, key) => item.filters[key] ?? "others";
  const keys = [...new Set(report.cases.flatMap((item) => Object.keys(item.filters)))]
    .filter((key) => new Set(report.cases.map((item) => kept(item, key))).size > 1);
  const form = $("choice");
  const picks = keys.map((key) => {
    const select = make("select", { id: `pick-${key}` });
    form.insertBefore(make("label", {}, key[0].toUpperCase() + key.slice(1), " ", select), $("left-label"));
    return select;
  });
  const sides = ["left", "right"].map((side) => ({ pick: $(`pick-${side}`), image: $(side), tag: $(`tag-${side}`) }));
  const worst = $("pick-case"), mode = $("pick-mode");
  worst.replaceChildren(...report.cases.map((item, index) => new Option(`${index + 1}. ${item.title}`, index)));
  let current;

  // Each box offers what exists for the choices before it, the worst first.
  const choose = (wanted) => {
    let cases = report.cases;
    keys.forEach((key, index) => {
      const values = [...new Set(cases.map((item) => kept(item, key)))];
      const value = fill(picks[index], values, wanted ? kept(wanted, key) : chosen(picks[index]));
      picks[index].parentElement.hidden = values.length === 1 && value === "others";
      cases = cases.filter((item) => kept(item, key) === value);
    });
    current = wanted && cases.includes(wanted) ? wanted : cases[0];
    const place = report.cases.indexOf(current);
    worst.selectedIndex = place;
    $("previous").disabled = place === 0;
    $("next").disabled = place === report.cases.length - 1;
    const labels = current.views.map(named);
    sides.forEach(({ pick }, side) => {
      fill(pick, labels, labels.includes(chosen(pick)) ? chosen(pick) : labels.at(current.pair[side]));
    });
    compare();
    strip();
  };
  const show = (image, view) => {
    image.src = report.pictures[view.picture];
    image.alt = `${named(view)}, ${current.title}`;
    image.classList.toggle("low", view.low);
  };
  const compare = () => {
    $("stage").style.aspectRatio = `${current.width} / ${current.height}`;
    for (const { pick, image, tag } of sides) {
      const view = current.views[pick.selectedIndex];
      show(image, view);
      tag.textContent = named(view);
    }
    const gain = Number(mode.value), stage = $("stage");
    stage.classList.toggle("difference", gain > 0);
    stage.style.setProperty("--gain", gain || 1);
    $("slider").hidden = gain > 0 || current.views.length < 2;
    stage.classList.toggle("single", current.views.length < 2);
    $("exactness").hidden = gain === 0;
    if (gain) sides[0].tag.textContent = `${sides[0].tag.textContent} − ${sides[1].tag.textContent}, ×${gain}`;
    $("facts").replaceChildren(...current.facts.map((line) => make("li", { textContent: line })));
  };
  const tile = (view) => {
    const image = make("img", { width: current.width, height: current.height });
    show(image, view);
    image.style.height = "auto";
    const words = view.note ? [view.label, make("small", { textContent: view.note })] : [view.label];
    return make("figure", {}, image, make("figcaption", {}, ...words));
  };
  const strip = () => {
    $("shown").textContent = current.title;
    for (const element of $("strip").querySelectorAll(".chart")) { drawn.delete(element); globalThis.Plotly?.purge(element); }
    const groups = [...new Set(current.views.map((view) => view.group))];
    const charts = current.charts.map(({ title, description }) => {
      const element = make("div", { className: "chart", role: "img" });
      element.setAttribute("aria-label", description);
      return make("figure", {}, make("figcaption", { textContent: title }), element);
    });
    $("strip").replaceChildren(...groups.map((group) => make("div", { className: "row" },
      ...(groups.length > 1 || group ? [make("h3", { textContent: group || "Given" })] : []),
      make("div", { className: "tiles" }, ...current.views.filter((view) => view.group === group).map(tile)))),
    make("div", { className: "charts" }, ...charts));
    current.charts.forEach(({ figure }, index) => draw($("strip").querySelectorAll(".chart")[index], figure));
  };
  const go = (place) => { if (report.cases[place]) choose(report.cases[place]); };
  for (const pick of picks) pick.addEventListener("change", () => choose());
  for (const { pick } of sides) pick.addEventListener("change", compare);
  mode.addEventListener("change", compare);
  worst.addEventListener("change", () => go(worst.selectedIndex));
  $("previous").addEventListener("click", () => go(worst.selectedIndex - 1));
  $("next").addEventListener("click", () => go(worst.selectedIndex + 1));
  $("slider").addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    go(worst.selectedIndex + step);
  });
  $("slider").addEventListener("input", (event) => $("stage").style.setProperty("--at", `${event.target.value}%`));
  choose(report.cases[0]);
})();
