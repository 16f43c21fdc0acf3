const MAX_ROWS = 100, MAX_NARROW_ROWS = 25;

// The phases of a job as [kind, from, to].
function phases(job) {
  const first = job[FIELD.first_at], submitted = job[FIELD.submitted_at];
  const generate = job[FIELD.generate_s], download = job[FIELD.download_s], finished = job[FIELD.finished_at];
  const found = [];
  const start = submitted ?? finished;
  if (first !== null && start !== null && start > first) found.push([submitted === null ? "failed" : "submit", first, start]);
  if (submitted === null) return found;
  if (generate === null) {
    if (finished !== null) found.push(["failed", submitted, finished]);
    return found;
  }
  const generated = submitted + generate;
  found.push(["generate", submitted, generated]);
  if (download !== null) found.push(["download", generated, generated + download]);
  else if (finished !== null && finished > generated) found.push(["failed", generated, finished]);
  return found;
}

// Where time is on the axis, from 0 to 1: times in which nothing happened, such as the night between two processes, are cut out.
function timeScale(rows, start, end) {
  const busy = rows.flatMap(([, found]) => found.filter(([kind]) => kind !== "failed").map(([, from, to]) => [from, to]));
  const moments = rows.flatMap(([, found]) => found.flatMap(([, from, to]) => [[from, from], [to, to]]));
  const gaps = [], spans = [...busy, ...moments].sort((a, b) => a[0] - b[0]);
  let until = start;
  for (const [from, to] of spans) {
    if (from - until > 1800) gaps.push([until, from]);
    until = Math.max(until, to);
  }
  const idle = gaps.reduce((sum, [from, to]) => sum + to - from, 0), worked = Math.max(1, end - start - idle);
  // Each cut keeps a hundredth of the width.
  const cut = worked / 100, whole = worked + cut * gaps.length;
  const position = (at) => {
    let shown = at - start;
    for (const [from, to] of gaps) {
      if (at >= to) shown -= to - from - cut;
      else if (at > from) shown -= (at - from) * (1 - cut / (to - from));
    }
    return shown / whole;
  };
  return { gaps, position };
}

// Draws a page of consecutive jobs: a sample of a long run would be a line of dots.
function drawTimeline(jobs, page = 0) {
  const figure = document.getElementById("timeline");
  const started = jobs.filter((job) => job[FIELD.first_at] !== null);
  started.sort((a, b) => a[FIELD.first_at] - b[FIELD.first_at]);
  // On a phone there are so few rows that each has its name.
  const width = contentWidth(figure), isNarrow = width < 520, perPage = isNarrow ? MAX_NARROW_ROWS : MAX_ROWS;
  const rows = started.slice(page * perPage, (page + 1) * perPage).map((job) => [job, phases(job)]);
  const times = rows.flatMap(([, found]) => found.flatMap(([, from, to]) => [from, to]));
  if (!times.length) {
    showEmpty(figure, jobs.length ? "None of these jobs has been submitted." : "No job matches these filters.");
    return;
  }
  const start = times.reduce((a, b) => Math.min(a, b)), end = Math.max(start + 1, times.reduce((a, b) => Math.max(a, b)));
  const { gaps, position } = timeScale(rows, start, end);
  const rowHeight = Math.max(3, Math.min(20, 420 / rows.length)), hasNames = rowHeight >= 13;
  const left = hasNames ? (isNarrow ? 84 : 150) : 0, nameChars = isNarrow ? 11 : 20, plotWidth = width - left;
  const x = (at) => left + plotWidth * position(at);
  const svg = createChart(width, rows.length * rowHeight + 24, `Timeline of ${formatCount(rows.length, "job")} over ${formatDuration(end - start)}`);
  for (const [from, to] of gaps) {
    const gap = svgElement("rect", { class: "k-gap", x: x(from), y: 0, width: x(to) - x(from), height: rows.length * rowHeight });
    gap.append(svgElement("title", {}, `nothing happened for ${formatDuration(to - from)}`));
    svg.append(gap);
  }
  rows.forEach(([job, found], row) => svg.append(timelineRow(job, found, row * rowHeight, rowHeight, x, { hasNames, left, nameChars })));
  drawTimeAxis(svg, { left, width: plotWidth, y: rows.length * rowHeight + 4, start, end, gaps, position });
  const entries = [["submit", "submitting"], ["generate", "generating"], ["download", "downloading"], ["failed", "did not succeed"]];
  if (gaps.length) entries.push(["gap", "nothing happened, cut short"]);
  figure.replaceChildren(legend(entries), svg, htmlElement("figcaption", {}, `One row per job, in order of first submission; times are ${ZONE}.`));
  const pages = Math.ceil(started.length / perPage);
  if (pages > 1) {
    figure.append(htmlElement("nav", { class: "pager", "aria-label": "Pages of the timeline" }, ...pageControls(page, pages, (target) => drawTimeline(jobs, target))));
  }
}

// A failed phase is a thin line with its end marked, because one that lasts over a night would hide the others.
function timelineRow(job, found, y, rowHeight, x, { hasNames, left, nameChars }) {
  const group = svgElement("g"), height = Math.max(2, rowHeight - (rowHeight > 5 ? 2 : 0.5));
  const parts = found.map(([kind, from, to]) => `${kind === "failed" ? job[FIELD.state] : kind} ${formatDuration(to - from)}`);
  group.append(svgElement("title", {}, `${job[FIELD.id]}: ${parts.join(", ")}`));
  for (const [kind, from, to] of found) {
    const begin = x(from), width = Math.max(1, x(to) - begin);
    if (kind !== "failed") {
      group.append(svgElement("rect", { class: `k-${kind}`, x: begin, y, width, height }));
      continue;
    }
    group.append(svgElement("rect", { class: "k-failed-line", x: begin, y: y + height / 2 - 0.75, width, height: 1.5 }));
    group.append(svgElement("rect", { class: "k-failed", x: Math.max(begin, begin + width - 6), y, width: Math.min(6, width), height }));
  }
  if (hasNames) {
    const id = job[FIELD.id];
    group.append(svgElement("text", { x: left - 8, y: y + rowHeight / 2 + 3, "text-anchor": "end" }, id.length > nameChars ? `${id.slice(0, nameChars - 1)}…` : id));
  }
  return group;
}
