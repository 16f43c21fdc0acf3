"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);

// Text from the run is added as text nodes and attributes, never as markup.
function htmlElement(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svgElement(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function createChart(width, height, label) {
  return svgElement("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
}

// Formats a duration like `format_duration` in core/units.py.
function formatDuration(seconds) {
  if (seconds < 0.9995) return seconds ? `${Math.round(seconds * 1000)}ms` : "0s";
  if (seconds < 9.95 && Math.round(seconds * 10) !== Math.round(seconds) * 10) return `${seconds.toFixed(1)}s`;
  for (const [size, unit, smaller, smallerUnit] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
    const rounded = Math.round(seconds / smaller) * smaller;
    if (rounded < size) continue;
    const rest = (rounded % size) / smaller;
    return `${Math.floor(rounded / size)}${unit}${rest ? ` ${rest}${smallerUnit}` : ""}`;
  }
  return `${Math.round(seconds)}s`;
}

// Formats a time in UTC, as precisely as a chart of this span needs.
function formatTime(at, spanSeconds) {
  const date = new Date(at * 1000);
  if (Number.isNaN(date.getTime())) return "";
  const text = date.toISOString();
  if (spanSeconds > 2 * 86400) return `${text.slice(5, 10)} ${text.slice(11, 16)}`;
  return spanSeconds > 600 ? text.slice(11, 16) : text.slice(11, 19);
}

function contentWidth(figure) {
  const style = getComputedStyle(figure);
  return Math.max(220, figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
}

function legend(entries) {
  const list = htmlElement("ul", { class: "legend" });
  for (const [kind, label] of entries) list.append(htmlElement("li", { class: `k-${kind}` }, htmlElement("span", {}, label)));
  return list;
}

function labelAnchor(index, last) {
  if (index === 0) return "start";
  return index === last ? "end" : "middle";
}

// Draws a time axis with as many labels as fit.
function drawTimeAxis(svg, { left, width, y, start, end }) {
  const span = end - start;
  const last = Math.max(1, Math.min(8, Math.floor(width / 110)));
  svg.append(svgElement("line", { class: "axis", x1: left, x2: left + width, y1: y, y2: y }));
  for (let index = 0; index <= last; index += 1) {
    const x = left + (width * index) / last;
    const text = formatTime(start + (span * index) / last, span);
    svg.append(svgElement("text", { x, y: y + 16, "text-anchor": labelAnchor(index, last) }, text));
  }
}

function drawThroughput() {
  const figure = document.getElementById("throughput");
  const bins = DATA.bins;
  if (!figure || !bins) return;
  const { succeeded, other, throttled } = bins.counts;
  const totals = succeeded.map((count, index) => count + other[index]);
  const highest = Math.max(1, ...totals), top = highest > 1 ? highest + (highest % 2) : 1, maxThrottled = Math.max(1, ...throttled);
  const hasThrottled = throttled.some((count) => count > 0);
  const width = contentWidth(figure), left = 44, plotWidth = width - left, margin = 8, plotHeight = 170;
  const baseline = margin + plotHeight, throttledHeight = hasThrottled ? 34 : 0, height = baseline + throttledHeight + 26;
  const end = bins.start_at + bins.width_s * totals.length;
  const total = totals.reduce((sum, count) => sum + count, 0);
  const svg = createChart(width, height, `Finished jobs over time: ${total} jobs, at most ${highest} in ${formatDuration(bins.width_s)}`);
  for (const fraction of [0, 0.5, 1]) {
    const y = baseline - plotHeight * fraction;
    svg.append(svgElement("line", { class: "axis", x1: left, x2: width, y1: y, y2: y }));
    if (fraction !== 0.5 || top > 1) {
      svg.append(svgElement("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, (top * fraction).toLocaleString("en")));
    }
  }
  const step = plotWidth / totals.length, barWidth = Math.max(0.5, Math.min(step - (step > 4 ? 1 : 0), 48));
  totals.forEach((_, index) => {
    const x = left + step * index + (step - barWidth) / 2;
    const succeededHeight = (plotHeight * succeeded[index]) / top, otherHeight = (plotHeight * other[index]) / top;
    const group = svgElement("g");
    const time = formatTime(bins.start_at + bins.width_s * index, 86400);
    group.append(svgElement("title", {}, `${time} UTC: ${succeeded[index]} succeeded, ${other[index]} did not succeed, ${throttled[index]} throttled`));
    if (succeededHeight) group.append(svgElement("rect", { class: "k-succeeded", x, y: baseline - succeededHeight, width: barWidth, height: succeededHeight }));
    if (otherHeight) group.append(svgElement("rect", { class: "k-other", x, y: baseline - succeededHeight - otherHeight, width: barWidth, height: otherHeight }));
    if (throttled[index]) {
      group.append(svgElement("rect", { class: "k-throttled", x, y: baseline + 4, width: barWidth, height: 6 + (22 * throttled[index]) / maxThrottled }));
    }
    svg.append(group);
  });
  drawTimeAxis(svg, { left, width: plotWidth, y: baseline + throttledHeight, start: bins.start_at, end });
  const entries = [["succeeded", "succeeded"], ["other", "did not succeed"]];
  if (hasThrottled) entries.push(["throttled", "throttled submissions, below the axis"]);
  figure.replaceChildren(legend(entries), svg, htmlElement("figcaption", {}, `Finished jobs per ${formatDuration(bins.width_s)}; times are UTC.`));
}

function drawGenerationTimes() {
  const figure = document.getElementById("times");
  const times = DATA.times;
  if (!figure || !times) return;
  const models = Object.entries(times.counts);
  const width = contentWidth(figure), rowHeight = 62;
  const svg = createChart(width, rowHeight * models.length + 24, `Distribution of generation times of ${models.length} models`);
  const bars = times.edges_s.length - 1, step = width / bars;
  models.forEach(([model, counts], row) => {
    const baseline = rowHeight * (row + 1) - 4, highest = Math.max(1, ...counts);
    svg.append(svgElement("text", { class: "name", x: 0, y: baseline - 42 }, model));
    counts.forEach((count, bar) => {
      if (!count) return;
      const height = Math.max(1.5, (36 * count) / highest);
      const rect = svgElement("rect", { class: "k-bar", x: step * bar, y: baseline - height, width: Math.max(1, step - 1), height });
      rect.append(svgElement("title", {}, `${formatDuration(times.edges_s[bar])} to ${formatDuration(times.edges_s[bar + 1])}: ${count}`));
      svg.append(rect);
    });
    svg.append(svgElement("line", { class: "axis", x1: 0, x2: width, y1: baseline, y2: baseline }));
  });
  const last = Math.max(2, Math.min(6, Math.floor(width / 120)));
  for (let index = 0; index <= last; index += 1) {
    const edge = Math.round((bars * index) / last);
    const attributes = { x: step * edge, y: rowHeight * models.length + 14, "text-anchor": labelAnchor(index, last) };
    svg.append(svgElement("text", attributes, formatDuration(times.edges_s[edge])));
  }
  const scale = times.is_logarithmic ? " The time axis is logarithmic." : "";
  figure.replaceChildren(svg, htmlElement("figcaption", {}, `From submission to remote success; each model has its own vertical scale.${scale}`));
}
