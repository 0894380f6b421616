// Plotly in the page's own colours, each chart with its numbers as a table for those who can't see it.
/* global Plotly */
import { element, number } from "./page.js";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(extra = {}) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  return {
    margin: { l: 44, r: 10, t: 8, b: 34 },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: colour("--text"), size: 11 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, // grows away from the curves
    ...extra,
    xaxis: { ...axis, ...extra.xaxis },
    yaxis: { ...axis, ...extra.yaxis },
  };
}

const CONFIG = { displayModeBar: false, responsive: true };

/** A framed place for a chart: `draw(traces, layout)` shows it anew, `table(header, rows)` its numbers. */
export function chart(parent, title) {
  const plot = element("div", { class: "plot", role: "img", "aria-label": title });
  const body = element("table", {});
  const frame = element("div", { class: "chart" }, element("h3", {}, title), plot,
    element("details", {}, element("summary", {}, "As a table"), element("div", { class: "scroll" }, body)));
  parent.append(frame);
  let drawn = null;
  function draw(traces, extra) {
    drawn = [traces, extra];
    Plotly.react(plot, traces(colour), layout(extra), CONFIG);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn && draw(...drawn));
  return {
    frame,
    draw,
    table(header, rows) {
      body.replaceChildren(
        element("thead", {}, element("tr", {}, ...header.map((name) => element("th", {}, name)))),
        element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, number(cell, 6)))))),
      );
    },
  };
}

const LINES = ["--accent", "--level-c", "--level-a", "--warn"];
const DASHES = ["solid", "dash", "dot", "dashdot"]; // tell apart what shares a colour
const TABLE_ROWS = 50;

/** Curves over optimiser steps. `series`: [{name, points: [[step, value, time]], look?}]; NaN leaves a gap.
    `look` numbers a curve's colour and dashes, where they are to be the same in charts that lack some curves. */
export function drawCurves(place, series, options = {}) {
  const number_ = (value) => (typeof value === "number" ? value : null);
  const looks = series.map((each, i) => each.look ?? i);
  place.draw((palette) => series.map((each, i) => ({
    x: each.points.map((point) => point[0]),
    y: each.points.map((point) => number_(point[1])),
    name: each.name,
    mode: each.points.length < 2 ? "markers" : "lines",
    line: { color: palette(LINES[looks[i] % LINES.length]), width: 1.6, dash: DASHES[Math.floor(looks[i] / LINES.length) % DASHES.length] },
  })), { showlegend: series.length > 1 || series.some((each) => each.look !== undefined), xaxis: { title: { text: "step" } }, yaxis: options });
  const steps = new Map();
  series.forEach((each, column) => each.points.slice(-TABLE_ROWS).forEach(([step, value]) => {
    if (!steps.has(step)) steps.set(step, Array(series.length).fill(null));
    steps.get(step)[column] = value;
  }));
  const rows = [...steps.entries()].sort((a, b) => a[0] - b[0]).map(([step, values]) => [step, ...values]);
  place.table(["step", ...series.map((each) => each.name)], rows);
}

/** A subset's scores as a stacked histogram with the cuts between the levels. */
export function drawHistogram(place, histogram) {
  const middles = histogram.edges.slice(1).map((edge, i) => (edge + histogram.edges[i]) / 2);
  const widths = histogram.edges.slice(1).map((edge, i) => edge - histogram.edges[i]);
  const cuts = [histogram.cut_a, histogram.cut_c].filter((cut) => typeof cut === "number");
  place.draw((palette) => ["A", "B", "C"].map((level) => ({
    type: "bar",
    name: level,
    x: middles,
    y: histogram.counts[level],
    width: widths,
    marker: { color: palette(`--level-${level.toLowerCase()}`) },
  })), {
    barmode: "stack",
    xaxis: { title: { text: "score" } },
    yaxis: { title: { text: "samples" } },
    shapes: cuts.map((cut) => ({
      type: "line", x0: cut, x1: cut, yref: "paper", y0: 0, y1: 1, line: { dash: "dot", width: 1.2, color: colour("--text") },
    })),
  });
  place.table(["from", "to", "A", "B", "C"], middles.map((_, i) => [
    histogram.edges[i], histogram.edges[i + 1], ...["A", "B", "C"].map((level) => histogram.counts[level][i]),
  ]));
}
