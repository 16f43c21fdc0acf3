const FIELD = Object.fromEntries(DATA.fields.map((name, place) => [name, place]));
const MOST_ROWS = 100;

// The phases of a job as [kind, from, to]; what did not get further than its task is drawn until it ended.
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
  const seen = submitted + generate;
  found.push(["generate", submitted, seen]);
  if (download !== null) found.push(["download", seen, seen + download]);
  else if (finished !== null && finished > seen) found.push(["failed", seen, finished]);
  return found;
}

// Shows a stretch of jobs that follow each other: a sample of a long run would be a line of dots.
function drawTimeline(jobs, stretch = 0) {
  const figure = document.getElementById("timeline");
  const began = jobs.filter((job) => job[FIELD.first_at] !== null);
  began.sort((one, other) => one[FIELD.first_at] - other[FIELD.first_at]);
  const rows = began.slice(stretch * MOST_ROWS, (stretch + 1) * MOST_ROWS).map((job) => [job, phases(job)]);
  const moments = rows.flatMap(([, found]) => found.flatMap(([, from, to]) => [from, to]));
  if (!moments.length) {
    figure.replaceChildren(element("p", { class: "quiet" }, "None of these jobs was sent."));
    return;
  }
  const start = moments.reduce((low, at) => Math.min(low, at)), end = Math.max(start + 1, moments.reduce((high, at) => Math.max(high, at)));
  const width = roomIn(figure);
  const tall = Math.max(2, Math.min(20, 420 / rows.length)), isNamed = tall >= 13 && width > 520;
  const left = isNamed ? 150 : 0, plot = width - left;
  const x = (at) => left + (plot * (at - start)) / (end - start);
  const svg = canvas(width, rows.length * tall + 24, `Timeline of ${rows.length} jobs over ${seconds(end - start)}`);
  rows.forEach(([job, found], place) => {
    const group = drawing("g"), y = place * tall;
    const words = found.map(([kind, from, to]) => `${kind === "failed" ? job[FIELD.state] : kind} ${seconds(to - from)}`);
    group.append(drawing("title", {}, `${job[FIELD.id]}: ${words.join(", ")}`));
    for (const [kind, from, to] of found) {
      group.append(drawing("rect", { class: `k-${kind}`, x: x(from), y, width: Math.max(1, x(to) - x(from)), height: Math.max(1.5, tall - (tall > 5 ? 2 : 0.3)) }));
    }
    if (isNamed) {
      const id = job[FIELD.id];
      group.append(drawing("text", { x: left - 8, y: y + tall / 2 + 3, "text-anchor": "end" }, id.length > 20 ? `${id.slice(0, 19)}…` : id));
    }
    svg.append(group);
  });
  timeAxis(svg, { left, width: plot, y: rows.length * tall + 4, start, end });
  const entries = [["submit", "waiting to be accepted"], ["generate", "generating"], ["download", "downloading"], ["failed", "ended without success"]];
  figure.replaceChildren(legend(entries), svg, element("figcaption", {}, "A row is a job, in the order of their first requests; times are UTC."));
  const stretches = Math.ceil(began.length / MOST_ROWS);
  if (stretches > 1) figure.append(element("nav", { class: "pager", "aria-label": "Stretches of the timeline" }, ...stretchButtons(jobs, stretch, stretches)));
}

function stretchButtons(jobs, stretch, stretches) {
  const go = (words, to) => {
    const button = element("button", { type: "button" }, words);
    button.disabled = to < 0 || to >= stretches;
    button.addEventListener("click", () => drawTimeline(jobs, to));
    return button;
  };
  return [go("Earlier", stretch - 1), element("span", {}, `${stretch + 1} of ${stretches.toLocaleString("en")}`), go("Later", stretch + 1)];
}
