function createChart(width, height, label) {
  return svgElement("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
}

function showEmpty(figure, text) {
  figure.replaceChildren(htmlElement("p", { class: "muted" }, text));
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

function labelAnchor(share) {
  if (share < 0.02) return "start";
  return share > 0.98 ? "end" : "middle";
}

const TICK_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];

// The times to label between two times: whole ones of the reader's clock, each once.
function ticks(start, end, leastStep) {
  const step = TICK_STEPS_S.find((each) => each >= leastStep) ?? Math.ceil(leastStep / 86_400) * 86_400;
  const offset = new Date(start * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((start - offset) / step) * step + offset; at <= end; at += step) found.push(at);
  return found;
}

// Draws a time axis with as many labels as fit.
function drawTimeAxis(svg, { left, width, y, start, end, gaps = [], position = (at) => (at - start) / (end - start) }) {
  svg.append(svgElement("line", { class: "axis", x1: left, x2: left + width, y1: y, y2: y }));
  const shown = end - start - gaps.reduce((sum, [from, to]) => sum + to - from, 0);
  const starts = [start, ...gaps.map(([, to]) => to)], ends = [...gaps.map(([from]) => from), end];
  const labels = starts.flatMap((from, index) => ticks(from, ends[index], shown / Math.max(1, Math.min(8, Math.floor(width / 110)))));
  let lastX = -Infinity;
  for (const at of labels.length ? labels : [start]) {
    const share = position(at), x = left + width * share;
    if (x - lastX < 70) continue;
    lastX = x;
    svg.append(svgElement("text", { x, y: y + 16, "text-anchor": labelAnchor(share) }, formatTime(at, gaps.length ? end - start : shown)));
  }
}

// The whole run as one bar, in the order of the buttons below it.
function drawWhole() {
  const place = document.getElementById("whole"), width = place.clientWidth, height = 14;
  const total = DATA.states.reduce((sum, [, count]) => sum + count, 0);
  const svg = createChart(width, height, `Jobs by state: ${DATA.states.map(([state, count]) => `${count} ${state}`).join(", ")}`);
  let x = 0;
  for (const [state, count] of DATA.states) {
    const part = (width * count) / total;
    svg.append(svgElement("rect", { class: `s-${state}`, x, y: 0, width: Math.max(1, part - 1.5), height }));
    x += part;
  }
  place.replaceChildren(svg);
}

function drawThroughput() {
  const figure = document.getElementById("throughput");
  const bins = DATA.bins;
  if (!bins) {
    showEmpty(figure, "No job has finished yet.");
    return;
  }
  const { succeeded, other, throttled } = bins.counts;
  const totals = succeeded.map((count, index) => count + other[index]);
  const highest = Math.max(1, ...totals), top = highest > 1 ? highest + (highest % 2) : 1, maxThrottled = Math.max(1, ...throttled);
  const hasThrottled = throttled.some((count) => count > 0);
  const width = contentWidth(figure), left = 56, plotWidth = width - left, margin = 8, plotHeight = 170;
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
  const middle = margin + plotHeight / 2;
  svg.append(svgElement("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, "jobs"));
  const step = plotWidth / totals.length, barWidth = Math.max(0.5, Math.min(step - (step > 4 ? 1 : 0), 48));
  totals.forEach((_, index) => {
    const x = left + step * index + (step - barWidth) / 2;
    const succeededHeight = (plotHeight * succeeded[index]) / top, otherHeight = (plotHeight * other[index]) / top;
    const group = svgElement("g");
    const time = formatTime(bins.start_at + bins.width_s * index, 86400);
    group.append(svgElement("title", {}, `${time}: ${succeeded[index]} succeeded, ${other[index]} did not succeed, ${throttled[index]} throttled`));
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
  figure.replaceChildren(legend(entries), svg, htmlElement("figcaption", {}, `Finished jobs per ${formatDuration(bins.width_s)}; times are ${ZONE}.`));
}

function drawGenerationTimes() {
  const figure = document.getElementById("times");
  const times = DATA.times;
  if (!times) {
    showEmpty(figure, "No video has been generated yet.");
    return;
  }
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
    const attributes = { x: step * edge, y: rowHeight * models.length + 14, "text-anchor": labelAnchor(index / last) };
    svg.append(svgElement("text", attributes, formatDuration(times.edges_s[edge])));
  }
  const scale = times.is_logarithmic ? " The time axis is logarithmic." : "";
  figure.replaceChildren(svg, htmlElement("figcaption", {}, `From submission to remote success; each model has its own vertical scale.${scale}`));
}
