const OTHERS_PER_PAGE = 25, ROWS_PER_PAGE = 10;
const DEFAULT_RATIO = 16 / 9;
const shown = { clips: [], others: [], othersPage: 0 };

function ratioOf(job) {
  const width = job[FIELD.width], height = job[FIELD.height];
  return width && height ? Math.min(4, Math.max(0.25, width / height)) : DEFAULT_RATIO;
}

function pairList(pairs) {
  const list = htmlElement("dl", { class: "pairs" });
  for (const [key, value] of pairs) list.append(htmlElement("dt", {}, foreign(key)), htmlElement("dd", {}, typeof value === "string" ? foreign(value) : value));
  return list;
}

// Without a poster, a video is not read from the disk until its card is visible.
const visibility = "IntersectionObserver" in window ? new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.preload = "metadata";
    visibility.unobserve(entry.target);
  }
}, { rootMargin: "200px" }) : null;

function videoOf(job) {
  const path = job[FIELD.video], poster = DATA.posters[path];
  const video = htmlElement("video", {
    playsinline: "", loop: "", preload: "none", src: assetUrl(path),
    poster: poster ? `data:image/jpeg;base64,${poster}` : null, "aria-label": `Clip of ${job[FIELD.id]}`,
  });
  video.muted = true;
  video.style.aspectRatio = ratioOf(job);
  video.addEventListener("error", () => video.replaceWith(htmlElement("div", { class: "no-video" }, `${assetName(path)} is missing or can't be played`)), { once: true });
  if (!poster) visibility?.observe(video);
  return video;
}

function play(video) {
  // It is refused if the card went away meanwhile.
  video.play().catch(() => {});
}

function togglePlay(video) {
  if (video.paused) play(video);
  else video.pause();
}

const MOVES_LITTLE = matchMedia("(prefers-reduced-motion: reduce)");

function playsOnHover(video) {
  video.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse" && !MOVES_LITTLE.matches) play(video);
  });
  video.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") video.pause();
  });
  video.addEventListener("click", () => togglePlay(video));
}

function videoFacts(job) {
  const size = job[FIELD.width] && job[FIELD.height] ? `${job[FIELD.width]} × ${job[FIELD.height]}` : "";
  const duration = job[FIELD.duration_s] ? formatDuration(job[FIELD.duration_s]) : "";
  return [duration, size, job[FIELD.bytes] === null ? "" : formatSize(job[FIELD.bytes])].filter(Boolean).join(", ");
}

function fileLink(path) {
  return path ? htmlElement("a", { href: assetUrl(path), target: "_blank", rel: "noopener" }, foreign(assetName(path))) : "";
}

function details(job) {
  const pairs = [["model", job[FIELD.model]], ["task", job[FIELD.task_id]], ["video", videoFacts(job)], ["file", fileLink(job[FIELD.video])], ["last frame", fileLink(job[FIELD.last_frame])]];
  if (job[FIELD.first_at] !== null) pairs.push(["first submitted", formatMoment(job[FIELD.first_at])]);
  if (job[FIELD.generate_s] !== null) pairs.push(["generated in", formatDuration(job[FIELD.generate_s])]);
  if (job[FIELD.download_s] !== null) pairs.push(["downloaded in", formatDuration(job[FIELD.download_s])]);
  if (job[FIELD.attempts] > 1) pairs.push(["attempts", `${job[FIELD.attempts]}, ${job[FIELD.throttled]} throttled`]);
  for (const take of job[FIELD.takes]) pairs.push(["other take", fileLink(take)]);
  return pairs.filter(([, value]) => value);
}

function allDetails(job) {
  const checks = job[FIELD.checks].map(([name, text]) => [`check ${name}`, text]), warnings = job[FIELD.warnings].map((text) => ["warning", text]);
  return pairList([...details(job), ...job[FIELD.params], ...job[FIELD.metadata], ...checks, ...warnings]);
}

function stateBadge(job) {
  const state = job[FIELD.state];
  return htmlElement("span", { class: `badge ${state}` }, state.replaceAll("_", " "));
}

// A clip: in the gallery with its text, in a comparison without.
function clipCard(job, isSmall = false) {
  const video = videoOf(job);
  playsOnHover(video);
  const frame = htmlElement("div", { class: "frame" }, video, button("Enlarge", () => enlarge(job), { class: "small enlarge", "aria-label": `Enlarge ${job[FIELD.id]}` }));
  const top = htmlElement("div", { class: "top" }, foreign(job[FIELD.id], { class: "id" }), job[FIELD.state] === "succeeded" ? null : stateBadge(job));
  const body = htmlElement("div", { class: "body" }, top, htmlElement("p", { class: "muted facts" }, [videoFacts(job), job[FIELD.takes].length ? formatCount(job[FIELD.takes].length + 1, "take") : ""].filter(Boolean).join(", ")));
  if (!isSmall) {
    if (job[FIELD.prompt]) body.append(htmlElement("p", { class: "prompt" }, foreign(job[FIELD.prompt], { dir: "auto" })));
    if (job[FIELD.cls] && job[FIELD.state] !== "succeeded") body.append(failureText(job));
    if (job[FIELD.verdict_why]) body.append(htmlElement("p", { class: "error" }, "rejected by checks: ", foreign(job[FIELD.verdict_why])));
    else if (job[FIELD.warnings].length) body.append(htmlElement("p", { class: "warning" }, "warning: ", foreign(job[FIELD.warnings][0])));
  }
  body.append(verdictButtons(job));
  const card = htmlElement("article", { class: "card", tabindex: "-1", "aria-label": job[FIELD.id] }, frame, body);
  if (!isSmall) {
    const more = htmlElement("details", {}, htmlElement("summary", {}, "Details"));
    more.addEventListener("toggle", () => {
      if (more.open && !more.querySelector("dl")) more.append(allDetails(job));
      card.classList.toggle("open", more.open);
    });
    body.append(more);
  }
  card.job = job;
  card.style.setProperty("--ratio", ratioOf(job));
  card.addEventListener("focusin", () => makeCurrent(card));
  markVerdict(card);
  return card;
}

function failureText(job) {
  return htmlElement("p", { class: "error" }, `${job[FIELD.cls]}: `, foreign(job[FIELD.message]));
}

function pageSize() {
  return view.by ? ROWS_PER_PAGE : Number(view.size);
}

function pageCount() {
  return Math.max(1, Math.ceil((view.by ? comparedRows(shown.clips).length : shown.clips.length) / pageSize()));
}

function currentPage() {
  return Math.min(pageCount(), Math.max(1, Math.round(Number(view.page)) || 1)) - 1;
}

function openPage(page) {
  view.page = page ? String(page + 1) : "";
  writeAddress();
  drawClips();
  document.getElementById("cards").scrollIntoView({ block: "nearest" });
}

// Rows of clips have one height, so the widths follow from the shapes: the usual clip gets 18rem, the narrowest 10rem.
function fitRows(clips) {
  const ratios = clips.map(ratioOf).sort((a, b) => a - b);
  const height = Math.max(Math.min(24, 18 / ratios[Math.floor(ratios.length / 2)]), Math.min(18, 10 / ratios[0]));
  document.getElementById("cards").style.setProperty("--height", `${height}rem`);
}

function drawClips() {
  const cards = document.getElementById("cards"), start = currentPage() * pageSize();
  cards.className = view.by ? "compare" : "gallery";
  if (!shown.clips.length) cards.replaceChildren(htmlElement("p", { class: "note" }, emptyText()));
  else if (view.by) cards.replaceChildren(comparison(shown.clips, start));
  else {
    const clips = shown.clips.slice(start, start + pageSize());
    fitRows(clips);
    cards.replaceChildren(...clips.map((job) => clipCard(job)));
  }
  const first = cards.querySelector(".card");
  if (first) first.tabIndex = 0;
  const pages = pageCount();
  document.getElementById("pager").replaceChildren(...(pages > 1 ? pageControls(currentPage(), pages, openPage) : []));
}

function emptyText() {
  if (shown.others.length) return "None of these jobs has a video; they are listed below.";
  return "No job matches these filters. “Show all” removes them.";
}

// Jobs without a video have nothing to look at, and are rows of a table.
function drawOthers() {
  const place = document.getElementById("others"), page = shown.othersPage;
  if (!shown.others.length) {
    place.replaceChildren();
    return;
  }
  const rows = shown.others.slice(page * OTHERS_PER_PAGE, (page + 1) * OTHERS_PER_PAGE).map((job) => htmlElement("tr", {},
    htmlElement("th", { scope: "row" }, foreign(job[FIELD.id], { class: "id" })),
    htmlElement("td", {}, stateBadge(job)),
    htmlElement("td", {}, job[FIELD.cls] ? failureText(job) : null, job[FIELD.prompt] ? htmlElement("p", { class: "prompt" }, foreign(job[FIELD.prompt], { dir: "auto" })) : null),
    htmlElement("td", {}, foreign(job[FIELD.task_id])), htmlElement("td", {}, foreign(job[FIELD.model]))));
  const head = ["job", "state", "reason and prompt", "task", "model"].map((name) => htmlElement("th", { scope: "col" }, name));
  const table = htmlElement("table", {}, htmlElement("thead", {}, htmlElement("tr", {}, ...head)), htmlElement("tbody", {}, ...rows));
  const pages = Math.ceil(shown.others.length / OTHERS_PER_PAGE);
  const open = (target) => {
    shown.othersPage = target;
    drawOthers();
  };
  place.replaceChildren(
    htmlElement("h3", {}, `Without a video: ${formatCount(shown.others.length, "job")}`),
    htmlElement("div", { class: "scroll", role: "region", "aria-label": "Jobs without a video", tabindex: "0" }, table),
    htmlElement("nav", { class: "pager", "aria-label": "Pages of jobs without a video" }, ...(pages > 1 ? pageControls(page, pages, open) : [])));
}

function draw() {
  const jobs = sortJobs(matchingJobs());
  shown.clips = jobs.filter((job) => job[FIELD.video]);
  shown.others = jobs.filter((job) => !job[FIELD.video]);
  shown.othersPage = 0;
  document.getElementById("matching").textContent = `${jobs.length.toLocaleString("en")} of ${formatCount(DATA.jobs.length, "job")}, ${shown.clips.length.toLocaleString("en")} with a video`;
  markFilters();
  drawClips();
  drawOthers();
  drawTimeline(jobs);
}
