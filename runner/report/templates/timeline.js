const FIELD = Object.fromEntries(DATA.fields.map((name, index) => [name, index]));
const MAX_ROWS = 100;

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

// Draws a page of consecutive jobs: a sample of a long run would be a line of dots.
function drawTimeline(jobs, page = 0) {
  const figure = document.getElementById("timeline");
  const started = jobs.filter((job) => job[FIELD.first_at] !== null);
  started.sort((a, b) => a[FIELD.first_at] - b[FIELD.first_at]);
  const rows = started.slice(page * MAX_ROWS, (page + 1) * MAX_ROWS).map((job) => [job, phases(job)]);
  const times = rows.flatMap(([, found]) => found.flatMap(([, from, to]) => [from, to]));
  if (!times.length) {
    const text = jobs.length ? "None of these jobs has been submitted." : "No jobs match these filters.";
    figure.replaceChildren(htmlElement("p", { class: "muted" }, text));
    return;
  }
  const start = times.reduce((a, b) => Math.min(a, b)), end = Math.max(start + 1, times.reduce((a, b) => Math.max(a, b)));
  const width = contentWidth(figure);
  const rowHeight = Math.max(2, Math.min(20, 420 / rows.length)), hasNames = rowHeight >= 13 && width > 520;
  const left = hasNames ? 150 : 0, plotWidth = width - left;
  const x = (at) => left + (plotWidth * (at - start)) / (end - start);
  const svg = createChart(width, rows.length * rowHeight + 24, `Timeline of ${rows.length} jobs over ${formatDuration(end - start)}`);
  rows.forEach(([job, found], row) => {
    const group = svgElement("g"), y = row * rowHeight;
    const parts = found.map(([kind, from, to]) => `${kind === "failed" ? job[FIELD.state] : kind} ${formatDuration(to - from)}`);
    group.append(svgElement("title", {}, `${job[FIELD.id]}: ${parts.join(", ")}`));
    for (const [kind, from, to] of found) {
      group.append(svgElement("rect", { class: `k-${kind}`, x: x(from), y, width: Math.max(1, x(to) - x(from)), height: Math.max(1.5, rowHeight - (rowHeight > 5 ? 2 : 0.3)) }));
    }
    if (hasNames) {
      const id = job[FIELD.id];
      group.append(svgElement("text", { x: left - 8, y: y + rowHeight / 2 + 3, "text-anchor": "end" }, id.length > 20 ? `${id.slice(0, 19)}…` : id));
    }
    svg.append(group);
  });
  drawTimeAxis(svg, { left, width: plotWidth, y: rows.length * rowHeight + 4, start, end });
  const entries = [["submit", "submitting"], ["generate", "generating"], ["download", "downloading"], ["failed", "did not succeed"]];
  figure.replaceChildren(legend(entries), svg, htmlElement("figcaption", {}, "One row per job, in order of first submission; times are UTC."));
  const pages = Math.ceil(started.length / MAX_ROWS);
  if (pages > 1) {
    const buttons = pageButtons("Earlier", "Later", page, pages, (target) => drawTimeline(jobs, target));
    figure.append(htmlElement("nav", { class: "pager", "aria-label": "Pages of the timeline" }, ...buttons));
  }
}

function pageButtons(previous, next, page, pages, open) {
  const button = (label, target) => {
    const element = htmlElement("button", { type: "button" }, label);
    element.disabled = target < 0 || target >= pages;
    element.addEventListener("click", () => open(target));
    return element;
  };
  return [button(previous, page - 1), htmlElement("span", {}, `${page + 1} of ${pages.toLocaleString("en")}`), button(next, page + 1)];
}
