// What can be moved on the page. Text from outside goes into the page as text (textContent), and
// into plots with its markup escaped, since plotly reads a little HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const BANDS = {
  light: ["#2166ac", "#67a9cf", "#8a8a8a", "#ef8a62", "#b2182b"],
  dark: ["#5aa2ee", "#92c5e8", "#b0b0b0", "#f7a989", "#ff6f6f"],
};
const SIGNED = [[0, "#08264f"], [0.25, "#3a6bb0"], [0.5, "#9b9b9b"], [0.75, "#f0a868"], [1, "#fff3c9"]];  // as in figures/style.py
const MARKS = ["triangle-down", "triangle-down", "circle", "triangle-up", "triangle-up"];
const BESIDE = {
  embedding: ["embedding output", "dot"], random: ["random weights", "solid"],
  bag_of_words: ["bag of words", "dash"], lexical: ["ratings of the words", "dashdot"],
};
const GRIDS = { cka: "CKA", cka_debiased: "CKA, debiased", without: "CKA without the largest dimensions" };
const CHOICES = [["window", "windows"], ["contrast", "contrasts"], ["norms", "norms"]];
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

let data, corpora, stories = {};
const state = { window: null, contrast: null, norms: null, cell: 0, layer: 0, grid: "cka", emotion: null, beside: 0 };

async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
const unpackedJson = async (id) => JSON.parse(new TextDecoder().decode(await unpacked(id)));

const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const cut = (value) => (value === null || value === undefined ? null : value / 1000);
const decimal = (value) => (value === null || value === undefined ? "–" : value.toFixed(2).replace("0.", "."));
const percent = (thousandths) => (thousandths === null || thousandths === undefined ? "–" : (thousandths / 10).toFixed(0));
const pValue = (p) => (p === null ? "–" : p < 0.001 ? "< .001" : p >= 0.9995 ? "= 1" : `= ${p.toFixed(3).slice(1)}`);
const times = (value, factor) => (value === null ? null : value * factor);
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const isNarrow = () => matchMedia("(max-width: 44rem)").matches;
const faded = (hex, alpha) => `rgba(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",")},${alpha})`;

const cell = () => data.cells[state.cell];
const way = () => `${state.window}|${state.contrast}`;
const wayOf = () => `${way()}|${state.norms}`;
const several = () => new Set(data.cells.map((c) => c.run)).size > 1;
const nameOf = (c) => (several() ? `${c.run}: ` : "") + `${c.model}@${c.corpus}`;
const layerAt = (c) => c.layers[state.layer];
const layerName = (layer) => (layer < 0 ? "embedding" : `layer ${layer}`);
const lineColour = (c) => (isDark() ? c.dark : c.colour);
const MANY = 12;  // cells that fit into one plot of curves
const BESIDES = ["all cells", "cells of its model", "cells of its corpus", "nothing"];
function isBeside(c) {
  const own = cell();
  if (c === own) return true;
  if (c.twin && !$("with-random").checked) return false;
  return [true, c.run === own.run && c.model === own.model, c.run === own.run && c.corpus === own.corpus, false][state.beside];
}
const nothing = () => (data.left.length ? "nothing at this choice; what the page leaves out is listed under Tables" : "nothing at this choice");

function layout(more) {
  const ink = colourOf("--ink"), line = colourOf("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const found = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
    margin: { l: 50, r: 15, t: 30, b: 45 }, hoverlabel: { align: "left" }, dragmode: isNarrow() ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colourOf("--soft"), activecolor: ink }, ...more,
  };
  for (const key of Object.keys(more)) if (/^[xy]axis/.test(key)) found[key] = { ...axis, ...more[key] };
  return found;
}

// A choice of one is no choice: its name stands as text where the list would be.
function fill(select, names, chosen, label = (name) => name) {
  const alone = select.nextElementSibling?.className === "alone" ? select.nextElementSibling : null;
  select.hidden = names.length === 1 && alone !== null;
  if (alone) {
    alone.hidden = !select.hidden;
    alone.textContent = select.hidden ? label(names[0]) : "";
  }
  select.replaceChildren(...names.map((name, i) => {
    const option = document.createElement("option");
    option.value = String(i);
    option.textContent = label(name);
    option.selected = name === chosen;
    return option;
  }));
}

function missing(plot, what) {
  Plotly.react(plot, [], layout({
    xaxis: { visible: false }, yaxis: { visible: false },
    annotations: [{ text: plain(what), showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper" }],
  }), CONFIG);
}

function drawDepth() {
  const traces = [], absent = [], narrow = isNarrow();
  ["valence", "arousal"].forEach((axis, panel) => {
    const at = panel ? { xaxis: "x2", yaxis: "y2" } : { xaxis: "x", yaxis: "y" };
    const own = cell(), mine = own.curves[wayOf()];
    if (mine) {
      for (const run of unbroken(own.layers, (i) => mine[axis].low[i] !== null)) {
        const back = run.slice().reverse();
        traces.push({
          ...at, x: [...run, ...back].map((i) => own.depth[i]), hoverinfo: "skip", showlegend: false, mode: "lines",
          y: [...run.map((i) => mine[axis].high[i]), ...back.map((i) => mine[axis].low[i])],
          fill: "toself", fillcolor: faded(lineColour(own), 0.18), line: { width: 0 },
        });
      }
      const beside = own.beside[`${wayOf()}|${axis}`] || {};
      for (const [key, [label, dash]] of Object.entries(BESIDE)) {
        if (beside[key] === undefined) continue;
        const varies = Array.isArray(beside[key]);
        const where = own.layers.map((_, i) => i).filter((i) => own.layers[i] >= 0);
        traces.push({
          ...at, x: varies ? where.map((i) => own.depth[i]) : [0, 1], mode: "lines", name: label, legendgroup: key,
          y: varies ? where.map((i) => beside[key][i]) : [beside[key], beside[key]],
          showlegend: !panel, line: { color: colourOf("--soft"), width: 1.2, dash },
          text: (varies ? where.map((i) => beside[key][i]) : [beside[key], beside[key]]).map(decimal),
          hovertemplate: `${label}: %{text}<extra></extra>`,
        });
      }
    }
    data.cells.forEach((c, index) => {
      const curve = c.curves[wayOf()];
      if (!isBeside(c)) return;
      if (!curve) {
        if (!panel) absent.push(nameOf(c));
        return;
      }
      const where = c.layers.map((_, i) => i).filter((i) => c.layers[i] >= 0);
      const colour = lineColour(c), { r, low, high, p, overlap, sure } = curve[axis];
      const line = { color: colour, dash: c.dash, width: index === state.cell ? 2.6 : 1.4 };
      const legend = { name: plain(nameOf(c)), legendgroup: `cell ${index}` };
      if (!panel) {
        traces.push({ ...at, ...legend, x: [null], y: [null], mode: "lines+markers", line, marker: { color: colour, symbol: c.symbol, size: 7 } });
      }
      traces.push({
        ...at, ...legend, x: where.map((i) => c.depth[i]), y: where.map((i) => r[i]), mode: "lines+markers",
        showlegend: false, connectgaps: false, line,
        marker: {
          symbol: where.map((i) => c.symbol + (sure[i] ? "" : "-open")), color: colour, opacity: 1, line: { width: 1, color: colour },
          size: where.map((i) => (index === state.cell && i === state.layer ? 13 : 7)),
        },
        customdata: where.map((i) => [index, i]),
        text: where.map((i) => `${plain(nameOf(c))}<br>layer ${c.layers[i]}: |r| = ${decimal(r[i])} (n = ${curve.n})`
          + `<br>interval ${decimal(low[i])} to ${decimal(high[i])}`
          + `<br>corrected p ${pValue(p[i])}`
          + `<br>component kept when drawn: ${decimal(overlap[i])}`),
        hovertemplate: "%{text}<extra></extra>",
      });
    });
  });
  const choice = `window ${state.window}, contrast ${state.contrast}, norms ${state.norms}`;
  $("depth-says").textContent = absent.length ? `Not drawn, since they were not made with ${choice}${data.left.length ? " or this page leaves them out" : ""}: ${absent.join(", ")}.` : "";
  if (!traces.length) return missing($("depth-plot"), "no cell has this choice");
  const r = { range: [0, 1.02], dtick: 0.2 }, depth = { range: [-0.02, 1.02], title: { text: "depth (layer / layers)" } };
  const norms = plain(state.norms);
  Plotly.react($("depth-plot"), traces, layout({
    grid: { rows: narrow ? 2 : 1, columns: narrow ? 1 : 2, pattern: "independent", xgap: 0.14, ygap: 0.28 },
    xaxis: depth, xaxis2: depth,
    yaxis: { ...r, title: { text: `|r|, PC1 and valence (${norms})` } },
    yaxis2: { ...r, title: { text: `|r|, PC2 and arousal (${norms})` } },
    legend: { orientation: "h", y: narrow ? -0.14 : -0.26 }, margin: { l: 55, r: 15, t: 35, b: 45 },
  }), CONFIG);
  return undefined;
}

function unbroken(layers, there) {
  const runs = [];
  layers.forEach((layer, i) => {
    if (layer < 0 || !there(i)) return;
    if (runs.length && runs.at(-1).at(-1) === i - 1) runs.at(-1).push(i);
    else runs.push([i]);
  });
  return runs;
}

// A row for each cell: |r| with valence at the block that holds each hundredth of the depth.
function drawOverview() {
  const plot = $("overview-plot"), n = 100, here = data.cells.map((_, i) => i)
    .filter((i) => data.cells[i].curves[wayOf()] && (!data.cells[i].twin || $("with-random").checked));
  if (!here.length) return missing(plot, nothing());
  const blockAt = (c, x) => c.depth.reduce((last, d, i) => (c.layers[i] >= 0 && d <= x + 1e-9 ? i : last), c.layers.findIndex((l) => l >= 0));
  const x = Array.from({ length: n }, (_, k) => (k + 0.5) / n), peaks = { x: [], y: [] };
  const at = here.map((i) => x.map((v) => [i, blockAt(data.cells[i], v)]));
  const r = (i, layer) => data.cells[i].curves[wayOf()].valence.r[layer];
  here.forEach((i, row) => {
    const c = data.cells[i], best = bestLayer(c);
    if (r(i, best) === null) return;
    const own = x.filter((_, k) => at[row][k][1] === best);
    peaks.x.push(own.length ? own[Math.floor(own.length / 2)] : c.depth[best]);
    peaks.y.push(row);
  });
  const folded = (text) => (isNarrow() ? text.replace(/@/, "\n@").match(/[^\n]{1,18}/g) : [text]);
  const names = here.map((i) => folded(nameOf(data.cells[i]))), lines = Math.max(...names.map((name) => name.length));
  const inner = Math.max(90, (lines > 1 ? 6 + 12 * lines : 17) * here.length);
  plot.style.height = `${inner + 34 + 55}px`;
  Plotly.react(plot, [{
    type: "heatmap", x, y: here.map((_, row) => row), z: at.map((row) => row.map(([i, layer]) => r(i, layer))), zmin: 0, zmax: 1,
    colorscale: "Cividis", ygap: 1, hoverongaps: false, customdata: at, colorbar: { title: { text: "|r|", side: "right" }, thickness: 12, lenmode: "pixels", len: Math.min(160, inner), y: 1, yanchor: "top", tickvals: [0, 0.5, 1] },
    text: at.map((row) => row.map(([i, layer]) => `${plain(nameOf(data.cells[i]))}<br>layer ${data.cells[i].layers[layer]}: |r| = ${decimal(r(i, layer))}`)),
    hovertemplate: "%{text}<extra></extra>",
  }, {
    ...peaks, mode: "markers", hoverinfo: "skip", showlegend: false,
    marker: { size: 7, color: "#d55e00", line: { width: 1, color: "#fff" } },
  }], layout({
    xaxis: { range: [0, 1], title: { text: "depth (layer / layers)" }, showgrid: false, zeroline: false },
    yaxis: {
      range: [here.length - 0.5, -0.5], tickvals: here.map((_, row) => row), ticktext: names.map((name) => name.map(plain).join("<br>")),
      tickfont: { size: 10 }, showgrid: false, zeroline: false,
    },
    margin: { l: 50, r: 15, t: 34, b: 55 }, dragmode: false,
  }), { ...CONFIG, displayModeBar: false });
  return undefined;
}

function drawActivations() {
  const traces = [], narrow = isNarrow();
  for (const [panel, key] of [[0, "ratio"], [1, "dimensions"]]) {
    data.cells.forEach((c, index) => {
      if (!isBeside(c)) return;
      const where = c.layers.map((_, i) => i).filter((i) => c.layers[i] >= 0);
      traces.push({
        xaxis: panel ? "x2" : "x", yaxis: panel ? "y2" : "y", mode: "lines+markers",
        x: where.map((i) => c.depth[i]), y: where.map((i) => times(c.activations[key][i], panel ? 100 : 1)),
        name: plain(nameOf(c)), legendgroup: `cell ${index}`, showlegend: !panel,
        line: { color: lineColour(c), dash: c.dash, width: 1.4 }, marker: { symbol: c.symbol, size: 5 },
        text: where.map((i) => `${plain(nameOf(c))}<br>layer ${c.layers[i]}: ${panel
          ? `${percent(times(c.activations.dimensions[i], 1000))} % in three dimensions`
          : `${c.activations.ratio[i] ?? "–"} times the mean; the first token in ${percent(times(c.activations.first[i], 1000))} % of texts`}`),
        hovertemplate: "%{text}<extra></extra>",
      });
    });
  }
  const depth = { range: [-0.02, 1.02], title: { text: "depth" } };
  Plotly.react($("activation-plot"), traces, layout({
    grid: { rows: narrow ? 2 : 1, columns: narrow ? 1 : 2, pattern: "independent", xgap: 0.2, ygap: 0.35 },
    xaxis: depth, xaxis2: depth, legend: { orientation: "h", y: narrow ? -0.18 : -0.3 },
    yaxis: { type: "log", dtick: 1, title: { text: "largest norm / mean" } },
    yaxis2: { range: [0, 102], title: { text: "three dimensions, %" } },
  }), CONFIG);
}

function drawMap() {
  const c = cell(), maps = c.maps[way()], plot = $("map-plot");
  const curve = c.curves[wayOf()], signs = c.signs[wayOf()];
  const at = maps && signs && maps[state.layer];
  const named = `${nameOf(c)}, ${layerName(layerAt(c))}`;
  if (!at) {
    $("map-says").textContent = `${named}: ${nothing()}.`;
    return missing(plot, nothing());
  }
  const [largest, one, two, shares] = at, sign = signs[state.layer];
  const bands = c.bands[state.norms] || c.emotions.map(() => null);
  const here = c.emotions.map((_, i) => i).filter((i) => one[i] !== null);
  const x = here.map((i) => sign[0] * largest * cut(one[i]));
  const y = here.map((i) => (two[i] === null ? null : sign[1] * largest * cut(two[i])));
  const chosen = here.indexOf(c.emotions.indexOf(state.emotion));
  const open = here.map((i) => bands[i] === null);
  const soft = colourOf("--soft");
  const shown = $("with-names").checked ? roomy(plot, here.map((i) => c.emotions[i]), x, y) : new Set();
  const label = chosen < 0 || shown.has(chosen) || y[chosen] === null ? [] : [{
    x: x[chosen], y: y[chosen], text: plain(c.emotions[here[chosen]]), showarrow: false, yshift: 17,
    bgcolor: faded(colourOf("--ground").replace(/^#(.)(.)(.)$/, "#$1$1$2$2$3$3"), 0.8),
  }];
  Plotly.react(plot, [{
    x, y, mode: "markers+text", type: "scatter", hovertext: here.map((i) => plain(c.emotions[i])),
    text: here.map((i, k) => (shown.has(k) ? plain(c.emotions[i]) : "")), textposition: "top center", textfont: { size: 10 },
    customdata: here.map((i) => c.emotions[i]),
    hovertemplate: "%{hovertext}<extra></extra>",
    marker: {
      opacity: 1, size: here.map((_, i) => (i === chosen ? 16 : 9)),
      color: here.map((i) => (bands[i] === null ? soft : BANDS[isDark() ? "dark" : "light"][bands[i]])),
      symbol: here.map((i, k) => (open[k] ? "circle-open" : MARKS[bands[i]])),
      line: { width: here.map((i, k) => (k === chosen ? 2 : open[k] ? 1.2 : 0.5)), color: here.map((i, k) => (open[k] && k !== chosen ? soft : colourOf("--ink"))) },
    },
  }], layout({
    xaxis: { title: { text: `PC1 (${percent(shares[0])} % of variance)` } },
    yaxis: { title: { text: `PC2 (${percent(shares[1])} % of variance)` } },
    annotations: label, hovermode: "closest", margin: { l: 55, r: 15, t: 35, b: 45 }, uirevision: `${state.cell} ${wayOf()}`,
  }), CONFIG);
  const r = curve ? `|r| with valence ${decimal(curve.valence.r[state.layer])}, with arousal ${decimal(curve.arousal.r[state.layer])} over ${curve.n} rated emotions` : "";
  $("map-says").textContent = `${named}: ${here.length} emotions; ${r}. Components point the way of their rating. Choose an emotion, or click it, to read its stories.`;
}

// Which names have room above their points, from the outside in; places are in the plot's own units.
function roomy(plot, names, x, y) {
  const wide = (plot.clientWidth || 600) - 70, high = (plot.clientHeight || 400) - 80;
  const span = (values) => Math.max(...values) - Math.min(...values) || 1;
  const there = names.map((_, k) => k).filter((k) => x[k] !== null && y[k] !== null);
  const ofX = (k) => (x[k] / span(there.map((i) => x[i]))) * wide * 0.9, ofY = (k) => (y[k] / span(there.map((i) => y[i]))) * high * 0.9;
  const boxes = there.map((k) => [ofX(k) - 5, ofY(k) - 5, ofX(k) + 5, ofY(k) + 5]), shown = new Set();
  const order = [...there].sort((a, b) => Math.hypot(ofX(b), ofY(b)) - Math.hypot(ofX(a), ofY(a)));
  for (const k of order) {
    const half = 3 * names[k].length, box = [ofX(k) - half, ofY(k) + 6, ofX(k) + half, ofY(k) + 19];
    if (boxes.some((b) => b[0] < box[2] && box[0] < b[2] && b[1] < box[3] && box[1] < b[3])) continue;
    boxes.push(box);
    shown.add(k);
  }
  return shown;
}

function drawGrid() {
  const c = cell(), plot = $("grid-plot"), [kind, estimator] = state.grid.split("|");
  const rows = kind === "direction" ? c.cosines[`${wayOf()}|${estimator}`] : (c.grids[way()] || {})[kind];
  if (!rows) return missing(plot, nothing());
  const n = rows.length, layers = c.layers.filter((i) => i >= 0);
  const z = rows.map((_, i) => layers.map((_, j) => cut(rows[Math.min(i, j)][Math.abs(i - j)])));
  const step = Math.ceil(n / 12), at = layers.map((_, i) => i).filter((i) => i % step === 0);
  const ticks = { tickvals: at, ticktext: at.map((i) => String(layers[i])) };
  const what = kind === "direction" ? "cosine" : "CKA", numbers = z.flat().filter((v) => v !== null);
  const least = Math.min(...numbers), below = numbers.filter((v) => v < 0).length;
  const signed = kind === "direction" && below > 0.01 * numbers.length;
  const from = signed ? -1 : kind === "direction" && numbers.length ? least : 0;
  Plotly.react(plot, [{
    type: "heatmap", z, zmin: from, zmax: 1, hoverongaps: false,
    colorscale: signed ? SIGNED : "Cividis", colorbar: { title: { text: what }, thickness: 12, len: 0.8 },
    customdata: layers.map((b) => layers.map((a) => `layers ${a} and ${b}`)),
    text: z.map((row) => row.map(decimal)), hovertemplate: `%{customdata}<br>${what} = %{text}<extra></extra>`,
  }], layout({
    title: { text: plain(nameOf(c)), font: { size: 13 }, x: 0.02, xanchor: "left", y: 0.985, yanchor: "top" },
    xaxis: { title: { text: "layer" }, constrain: "domain", showgrid: false, ...ticks },
    yaxis: { title: { text: "layer" }, scaleanchor: "x", constrain: "domain", showgrid: false, ...ticks }, margin: { l: 50, r: 15, t: 45, b: 45 },
  }), CONFIG);
}

async function showStories() {
  const c = cell(), box = $("stories"), index = corpora.findIndex(([run, name]) => run === c.run && name === c.corpus);
  if (state.emotion === null) return box.replaceChildren();
  const wanted = `${state.cell} ${state.emotion}`;
  stories[index] ??= unpackedJson(`stories-${index}`);
  const found = await stories[index];
  if (wanted !== `${state.cell} ${state.emotion}`) return undefined;
  const texts = Object.hasOwn(found.by, state.emotion) ? found.by[state.emotion] : [];
  const head = document.createElement("p");
  const some = found.shown < found.all ? `; this page carries ${found.shown} of the corpus' ${found.all} stories` : "";
  const many = texts.length === 1 ? "1 story" : `${texts.length || "No"} stories`;
  head.textContent = `${many} of ${state.emotion} in ${c.corpus}${some}.`;
  box.replaceChildren(head, ...texts.map(([topic, text]) => {
    const article = document.createElement("article"), title = document.createElement("h4"), body = document.createElement("p");
    article.className = "story";
    title.textContent = topic || "(no topic)";
    body.textContent = text;
    article.append(title, body);
    return article;
  }));
  return undefined;
}

function choose(change) {
  const before = cell().layers[state.layer];
  Object.assign(state, change);
  const c = cell();
  if ("cell" in change) {  // the choices that this cell was made with
    for (const [id, names] of CHOICES) {
      if (!c[names].includes(state[id])) state[id] = c[names][0];
      fill($(id), data[names], state[id], (name) => (c[names].includes(name) ? name : `${name} (not in this cell)`));
    }
  }
  if ("cell" in change && !("layer" in change)) {
    const same = c.layers.indexOf(before);
    state.layer = same >= 0 ? same : c.layers.length - 1;
  }
  if (state.emotion !== null && !c.emotions.includes(state.emotion)) state.emotion = null;
  $("layer").max = String(c.layers.length - 1);
  $("layer").value = String(state.layer);
  $("layer-name").textContent = layerName(layerAt(c));
  $("cell").value = String(state.cell);
  const names = [...c.emotions].sort((a, b) => a.localeCompare(b));
  fill($("emotion"), [null, ...names], state.emotion, (name) => (name === null ? "choose an emotion" : name));
  const kinds = [...Object.keys(GRIDS), ...c.estimators.map((e) => `direction|${e}`)];
  if (!kinds.includes(state.grid)) state.grid = "cka";
  fill($("grid"), kinds, state.grid, (kind) => GRIDS[kind] || `cosine of valence directions: ${kind.split("|")[1].replace(/^component$/, "pc1")}`);
  const keys = Object.keys(change);
  const only = (...some) => keys.length > 0 && keys.every((key) => some.includes(key));
  if (only("emotion")) {
    drawMap();
    const first = () => $("stories").querySelector("article") || $("stories").firstElementChild;
    return showStories().then(() => first()?.scrollIntoView({ block: "nearest" }));
  }
  if (only("grid")) return drawGrid();
  if (!only("layer")) { drawGrid(); showStories(); drawOverview(); drawActivations(); }
  drawDepth();
  return drawMap();
}

function bestLayer(c) {
  const curve = c.curves[wayOf()];
  if (!curve) return c.layers.length - 1;
  const r = curve.valence.r.map((v, i) => (v === null || c.layers[i] < 0 ? -1 : v));
  return r.indexOf(Math.max(...r));
}

async function start() {
  [data, corpora] = await Promise.all([unpackedJson("data"), unpackedJson("corpus-names")]);
  Object.assign(state, { window: data.window, contrast: data.contrasts[0], norms: data.norms[0] });
  state.layer = bestLayer(cell());
  for (const [id, names] of CHOICES) {
    fill($(id), data[names], state[id]);
    $(id).addEventListener("change", (event) => choose({ [id]: data[names][Number(event.target.value)] }));
  }
  fill($("cell"), data.cells, cell(), nameOf);
  $("cell").addEventListener("change", (event) => choose({ cell: Number(event.target.value) }));
  $("layer").addEventListener("input", (event) => choose({ layer: Number(event.target.value) }));
  $("emotion").addEventListener("change", (event) => {
    const text = event.target.selectedOptions[0].textContent;
    choose({ emotion: event.target.value === "0" ? null : text });
  });
  $("grid").addEventListener("change", (event) => {
    const kinds = [...Object.keys(GRIDS), ...cell().estimators.map((e) => `direction|${e}`)];
    choose({ grid: kinds[Number(event.target.value)] });
  });
  $("with-random").closest("label").hidden = !data.cells.some((c) => c.twin);
  $("beside").closest("label").hidden = data.cells.length === 1;
  state.beside = data.cells.length > MANY ? 1 : 0;
  fill($("beside"), BESIDES, BESIDES[state.beside]);
  $("beside").addEventListener("change", (event) => choose({ beside: Number(event.target.value) }));
  $("with-random").addEventListener("change", () => { drawDepth(); drawActivations(); drawOverview(); });
  for (const input of document.querySelectorAll("input.find")) input.addEventListener("input", () => find(input));
  $("with-names").addEventListener("change", drawMap);
  $("choices").addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("button.file")) button.addEventListener("click", () => save(button));
  const redraw = () => { drawOverview(); drawDepth(); drawActivations(); drawMap(); drawGrid(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("(max-width: 44rem)").addEventListener("change", redraw);
  // What sticks to the top covers headings that are jumped to, unless the page keeps clear of it.
  const clear = () => {
    const bar = isNarrow() ? $("often") : $("choices");
    document.documentElement.style.scrollPaddingTop = `${Math.ceil(bar.getBoundingClientRect().height) + 8}px`;
  };
  for (const id of ["choices", "often"]) new ResizeObserver(clear).observe($(id));
  matchMedia("(max-width: 44rem)").addEventListener("change", clear);
  choose({ cell: 0, layer: state.layer });
  clear();
  $("overview-plot").on("plotly_click", (event) => {
    const [index, layer] = event.points[0].customdata || [];
    if (index !== undefined) choose({ cell: index, layer });
  });
  $("depth-plot").on("plotly_click", (event) => {
    const [index, layer] = event.points[0].customdata || [];
    if (index !== undefined) choose({ cell: index, layer });
  });
  $("map-plot").on("plotly_click", (event) => choose({ emotion: event.points[0].customdata }));
  document.documentElement.dataset.ready = "yes";
}

// Shows what has the text that is looked for, and says how much that is.
function find(input) {
  const wanted = input.value.trim().toLowerCase(), all = [...document.querySelectorAll(input.dataset.of)];
  for (const one of all) one.hidden = !one.textContent.toLowerCase().includes(wanted);
  const shown = all.filter((one) => !one.hidden).length;
  input.closest("p").querySelector("[role=status]").textContent = wanted ? `${shown} of ${all.length}` : "";
}

async function save(button) {
  const url = URL.createObjectURL(new Blob([await unpacked(button.dataset.from)]));
  const link = document.createElement("a");
  link.href = url;
  link.download = button.dataset.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

start().catch((error) => {
  $("trouble").hidden = false;
  $("trouble").textContent = `The plots could not be drawn: ${error.message}. A browser of 2023 or later is needed.`;
  console.error(error);
});
