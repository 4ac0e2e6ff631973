// Texts coloured by emotion. What comes from outside goes into the page as text (textContent), and
// into plots with its markup escaped, since plotly reads a little HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const DASHES = ["solid", "dash", "dot", "dashdot"];
const LISTED = 10;
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

let data, spans = [], pointed = null;
const state = { text: 0, layer: 0, colour: -1, smooth: 1, token: null };

async function unpackedJson(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(new TextDecoder().decode(await new Response(stream).arrayBuffer()));
}

const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const signed = (hundredths) => (hundredths === null ? "–" : `${hundredths < 0 ? "−" : "+"}${(Math.abs(hundredths) / 100).toFixed(1)}`);
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const text = () => data.texts[state.text];
const here = () => text().layers[state.layer];

// The mean over the tokens around each that count; null for one that does not count itself.
function smoothed(values, width) {
  if (width === 1) return values;
  const half = (width - 1) / 2, sums = [0], counts = [0];
  values.forEach((value, i) => {
    sums.push(sums[i] + (value === null ? 0 : value));
    counts.push(counts[i] + (value === null ? 0 : 1));
  });
  return values.map((value, i) => {
    if (value === null) return null;
    const from = Math.max(0, i - half), to = Math.min(values.length, i + half + 1);
    return (sums[to] - sums[from]) / (counts[to] - counts[from]);
  });
}

// The scores from which tokens are coloured faintly and strongly: smoothed ones vary less.
const steps = () => data.steps[state.layer][data.widths.indexOf(state.smooth)];

// The ground of a token by the number of its emotion's colour; none below a faint score.
function tint(k, score) {
  const [faint, strong] = steps();
  if (score === null || faint === null || score < faint) return null;
  return `rgb(${data.tints[k][score >= strong ? 1 : 0].join(",")})`;
}

function option(value, label, chosen) {
  const made = document.createElement("option");
  made.value = String(value);
  made.textContent = label;
  made.selected = chosen;
  return made;
}

function drawTokens() {
  const curves = here().curves.map((curve) => smoothed(curve, state.smooth));
  spans.forEach((span, i) => {
    let best = state.colour;
    if (best < 0) curves.forEach((curve, k) => { if (curve[i] !== null && (best < 0 || curve[i] > curves[best][i])) best = k; });
    const background = best < 0 ? null : tint(best, curves[best][i]);
    span.style.background = background === null ? "" : background;
    span.classList.toggle("tinted", background !== null);
  });
  $("from").textContent = steps()[0] === null
    ? "How far tokens vary is not known here, so none is coloured."
    : `Tokens are coloured from ${signed(steps()[0])} on and strongly from ${signed(steps()[1])} on: ${data.sds.join(" and ")} standard deviations of the corpus’ tokens, smoothed alike.`;
  sayToken();
}

function drawLine() {
  const ink = colourOf("--ink"), rule = colourOf("--line");
  const axis = { gridcolor: rule, zerolinecolor: ink, linecolor: rule, automargin: true };
  const traces = here().leading.map((row, k) => ({
    x: here().curves[k].map((_, i) => i), y: smoothed(here().curves[k], state.smooth).map((v) => (v === null ? null : v / 100)),
    name: plain(data.emotions[row]), mode: "lines", connectgaps: false,
    line: { color: data.colours[k], width: state.colour === k ? 3 : 1.6, dash: DASHES[k % DASHES.length] },
    opacity: state.colour < 0 || state.colour === k ? 1 : 0.35,
    text: text().tokens.map(plain), hovertemplate: "%{text}<br>%{y:.1f}<extra>%{fullData.name}</extra>",
  }));
  Plotly.react("line-plot", traces, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
    margin: { l: 50, r: 15, t: 20, b: 45 }, legend: { orientation: "h", y: -0.2 },
    dragmode: matchMedia("(max-width: 44rem)").matches ? false : "zoom",
    xaxis: { ...axis, title: { text: "token" } }, yaxis: { ...axis, title: { text: "score (standard deviations)" } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colourOf("--soft"), activecolor: ink },
  }, CONFIG);
}

function drawKey() {
  $("key").replaceChildren(...here().leading.map((row, k) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = data.colours[k];
    item.append(swatch, document.createTextNode(data.emotions[row]));
    return item;
  }));
  $("colour").replaceChildren(
    option(-1, "the leading emotion", state.colour < 0),
    ...here().leading.map((row, k) => option(k, data.emotions[row], state.colour === k)));
}

function drawMeans() {
  const mean = here().mean;
  const order = mean.map((_, i) => i).filter((i) => mean[i] !== null).sort((a, b) => mean[b] - mean[a]);
  const n = Math.min(LISTED, Math.ceil(order.length / 2));
  $("mean-rows").replaceChildren(...Array.from({ length: n }, (_, i) => {
    const row = document.createElement("tr");
    [order[i], order[order.length - 1 - i]].forEach((emotion, side) => {
      if (side && order.length - 1 - i <= i) return;
      const name = document.createElement("td"), score = document.createElement("td");
      name.textContent = data.emotions[emotion];
      score.textContent = signed(mean[emotion]);
      score.className = "n";
      row.append(name, score);
    });
    return row;
  }));
}

function sayToken() {
  if (pointed) pointed.classList.remove("here");
  pointed = state.token === null ? null : spans[state.token];
  if (pointed) pointed.classList.add("here");
  if (state.token === null) { $("token-says").textContent = ""; return; }
  const i = state.token, names = here().highest[i], scores = here().scores[i];
  const token = text().tokens[i].trim() || "(space)";
  const said = scores.map((score, k) => (score === null ? null : `${data.emotions[names[k]]} ${signed(score)}`)).filter((s) => s !== null);
  $("token-says").textContent = said.length ? `“${token}”: ${said.join(", ")}` : `“${token}” is outside of the window and has no scores.`;
}

function choose(token, show) {
  state.token = token;
  sayToken();
  if (show && token !== null && spans[token]) spans[token].scrollIntoView({ block: "nearest" });
}

function drawLayer() {
  state.colour = -1;
  const layer = data.layers[state.layer];
  $("layer-name").textContent = `${layer}`;
  $("layer").setAttribute("aria-valuetext", `layer ${layer}`);
  $("said").textContent = `Layer ${layer}${data.said[state.layer] ? `: ${data.said[state.layer]}.` : "."}`;
  drawKey();
  drawTokens();
  drawLine();
  drawMeans();
}

function drawText() {
  spans = text().tokens.map((token) => {
    const span = document.createElement("span");
    span.textContent = token;
    return span;
  });
  $("tokens").replaceChildren(...spans);
  state.token = pointed = null;
  drawLayer();
}

async function begin() {
  data = await unpackedJson("data");
  state.layer = data.best;
  $("which").replaceChildren(...data.texts.map((t, i) => option(i, t.name, i === 0)));
  $("which").closest("label").hidden = data.texts.length < 2;
  $("layer").max = String(data.layers.length - 1);
  $("layer").value = String(state.layer);
  $("layer").closest("label").hidden = data.layers.length < 2;
  $("smooth").replaceChildren(...data.widths.map((width) => option(width, width === 1 ? "no tokens" : `${width} tokens`, width === 5)));
  state.smooth = 5;
  $("which").addEventListener("change", () => { state.text = Number($("which").value); drawText(); });
  $("layer").addEventListener("input", () => { state.layer = Number($("layer").value); drawLayer(); });
  $("colour").addEventListener("change", () => { state.colour = Number($("colour").value); drawTokens(); drawLine(); });
  $("smooth").addEventListener("change", () => { state.smooth = Number($("smooth").value); drawTokens(); drawLine(); });
  $("tokens").addEventListener("click", (event) => {
    const at = spans.indexOf(event.target);
    if (at >= 0) choose(at, false);
  });
  $("tokens").addEventListener("keydown", (event) => {
    const last = spans.length - 1, from = state.token;
    const to = {
      ArrowRight: from === null ? 0 : Math.min(last, from + 1), ArrowLeft: from === null ? last : Math.max(0, from - 1),
      Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to, true);
  });
  drawText();
  $("line-plot").on("plotly_click", (event) => choose(event.points[0].x, true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawLine);
  document.documentElement.dataset.ready = "yes";
}

begin().catch((error) => {
  $("trouble").textContent = `This page could not be drawn: ${error.message}`;
  $("trouble").hidden = false;
});
