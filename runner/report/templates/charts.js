"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);

// Everything foreign goes into the page as text nodes and attributes, never as markup.
function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function canvas(width, height, label) {
  return drawing("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
}

function seconds(value) {
  if (value < 10) return `${Number(value.toFixed(1))} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h${whole % 3600 >= 60 ? ` ${Math.floor((whole % 3600) / 60)} min` : ""}`;
  return `${Math.floor(whole / 86400)} d${whole % 86400 >= 3600 ? ` ${Math.floor((whole % 86400) / 3600)} h` : ""}`;
}

function clock(at, span) {
  const moment = new Date(at * 1000);
  if (Number.isNaN(moment.getTime())) return "";
  const text = moment.toISOString();
  if (span > 2 * 86400) return `${text.slice(5, 10)} ${text.slice(11, 16)}`;
  return span > 600 ? text.slice(11, 16) : text.slice(11, 19);
}

// The room for a drawing inside its figure.
function roomIn(figure) {
  const style = getComputedStyle(figure);
  return Math.max(220, figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
}

function legend(entries) {
  const list = element("ul", { class: "legend" });
  for (const [kind, words] of entries) list.append(element("li", { class: `k-${kind}` }, element("span", {}, words)));
  return list;
}

// Puts time under a chart, with as many labels as there is room for.
function timeAxis(svg, { left, width, y, start, end }) {
  const span = end - start;
  const labels = Math.max(1, Math.min(8, Math.floor(width / 110)));
  svg.append(drawing("line", { class: "axis", x1: left, x2: left + width, y1: y, y2: y }));
  for (let step = 0; step <= labels; step += 1) {
    const x = left + (width * step) / labels;
    const anchor = step === 0 ? "start" : step === labels ? "end" : "middle";
    svg.append(drawing("text", { x, y: y + 16, "text-anchor": anchor }, clock(start + (span * step) / labels, span)));
  }
}

function drawThroughput() {
  const figure = document.getElementById("throughput");
  const bins = DATA.bins;
  if (!figure || !bins) return;
  const { succeeded, other, throttled } = bins.counts;
  const sums = succeeded.map((count, place) => count + other[place]);
  const highest = Math.max(1, ...sums), most = highest > 1 ? highest + (highest % 2) : 1, mostThrottled = Math.max(1, ...throttled);
  const isThrottled = throttled.some((count) => count > 0);
  const width = roomIn(figure), left = 44, plot = width - left, top = 8, tall = 170;
  const base = top + tall, band = isThrottled ? 34 : 0, height = base + band + 26;
  const end = bins.start_at + bins.width_s * sums.length;
  const total = sums.reduce((sum, count) => sum + count, 0);
  const svg = canvas(width, height, `Jobs that ended over time: ${total} jobs, at most ${highest} in ${seconds(bins.width_s)}`);
  for (const share of [0, 0.5, 1]) {
    const y = base - tall * share;
    svg.append(drawing("line", { class: "axis", x1: left, x2: width, y1: y, y2: y }));
    if (share !== 0.5 || most > 1) {
      svg.append(drawing("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, (most * share).toLocaleString("en")));
    }
  }
  const step = plot / sums.length, bar = Math.max(0.5, Math.min(step - (step > 4 ? 1 : 0), 48));
  sums.forEach((sum, place) => {
    const x = left + step * place + (step - bar) / 2;
    const good = (tall * succeeded[place]) / most, bad = (tall * other[place]) / most;
    const group = drawing("g");
    group.append(drawing("title", {}, `${clock(bins.start_at + bins.width_s * place, 86400)} UTC: ${succeeded[place]} succeeded, ${other[place]} other, ${throttled[place]} throttled`));
    if (good) group.append(drawing("rect", { class: "k-succeeded", x, y: base - good, width: bar, height: good }));
    if (bad) group.append(drawing("rect", { class: "k-other", x, y: base - good - bad, width: bar, height: bad }));
    if (throttled[place]) {
      const deep = 6 + (22 * throttled[place]) / mostThrottled;
      group.append(drawing("rect", { class: "k-throttled", x, y: base + 4, width: bar, height: deep }));
    }
    svg.append(group);
  });
  timeAxis(svg, { left, width: plot, y: base + band, start: bins.start_at, end });
  const entries = [["succeeded", "succeeded"], ["other", "ended otherwise"]];
  if (isThrottled) entries.push(["throttled", "answers of “too many requests”, below the line"]);
  figure.replaceChildren(legend(entries), svg, element("figcaption", {}, `Jobs that ended in each ${seconds(bins.width_s)}; times are UTC.`));
}

function drawTimes() {
  const figure = document.getElementById("times");
  const times = DATA.times;
  if (!figure || !times) return;
  const models = Object.entries(times.counts);
  const width = roomIn(figure), row = 62;
  const svg = canvas(width, row * models.length + 24, `Distribution of generation times of ${models.length} models`);
  const bars = times.edges_s.length - 1, step = width / bars;
  models.forEach(([model, counts], place) => {
    const base = row * (place + 1) - 4, most = Math.max(1, ...counts);
    svg.append(drawing("text", { class: "name", x: 0, y: base - 42 }, model));
    counts.forEach((count, at) => {
      if (!count) return;
      const tall = Math.max(1.5, (36 * count) / most);
      const rect = drawing("rect", { class: "k-bar", x: step * at, y: base - tall, width: Math.max(1, step - 1), height: tall });
      rect.append(drawing("title", {}, `${count} of ${seconds(times.edges_s[at])} to ${seconds(times.edges_s[at + 1])}`));
      svg.append(rect);
    });
    svg.append(drawing("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }));
  });
  const labels = Math.max(2, Math.min(6, Math.floor(width / 120)));
  for (let label = 0; label <= labels; label += 1) {
    const edge = Math.round((bars * label) / labels);
    const anchor = label === 0 ? "start" : label === labels ? "end" : "middle";
    svg.append(drawing("text", { x: step * edge, y: row * models.length + 14, "text-anchor": anchor }, seconds(times.edges_s[edge])));
  }
  const scale = times.is_logarithmic ? " The axis is logarithmic." : "";
  figure.replaceChildren(svg, element("figcaption", {}, `From submission until success was seen; each model has its own height.${scale}`));
}
