const PAGE_SIZE = 24;
const view = { jobs: DATA.jobs, page: 0 };
const searchTexts = new Map();

// The text that a search looks through, made when it is first needed.
function searchText(job) {
  let text = searchTexts.get(job);
  if (text === undefined) {
    const pairs = [...job[FIELD.params], ...job[FIELD.metadata]].flat();
    const fields = [FIELD.id, FIELD.model, FIELD.prompt, FIELD.message, FIELD.task_id].map((field) => job[field]);
    text = [...fields, ...pairs].join("\n").toLowerCase();
    searchTexts.set(job, text);
  }
  return text;
}

function selected(id) {
  return document.getElementById(id).value;
}

function filterJobs() {
  const state = selected("state"), model = selected("model"), cls = selected("cls");
  const words = selected("search").toLowerCase().split(/\s+/).filter(Boolean);
  view.jobs = DATA.jobs.filter((job) =>
    (!state || job[FIELD.state] === state) && (!model || job[FIELD.model] === model) && (!cls || job[FIELD.cls] === cls)
    && (!words.length || words.every((word) => searchText(job).includes(word))));
  view.page = 0;
  const matching = view.jobs.length.toLocaleString("en"), all = DATA.jobs.length.toLocaleString("en");
  document.getElementById("matching").textContent = `${matching} of ${all} jobs`;
  drawTimeline(view.jobs);
  drawGallery();
}

function assetUrl(path) {
  return path.split("/").map(encodeURIComponent).join("/");
}

function pairList(pairs) {
  const list = htmlElement("dl", { class: "pairs" });
  for (const [key, value] of pairs) list.append(htmlElement("dt", {}, htmlElement("bdi", {}, key)), htmlElement("dd", {}, htmlElement("bdi", {}, value)));
  return list;
}

// A video is not read from the disk until its card is visible.
const visibility = "IntersectionObserver" in window ? new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.preload = "metadata";
    visibility.unobserve(entry.target);
  }
}, { rootMargin: "200px" }) : null;

function noVideo(text) {
  return htmlElement("div", { class: "no-video" }, text);
}

function videoOf(job) {
  const path = job[FIELD.video];
  if (!path) return noVideo(job[FIELD.state] === "undelivered" ? "Not downloaded yet" : "No video");
  const poster = job[FIELD.poster];
  const video = htmlElement("video", {
    controls: "", playsinline: "", preload: "none", src: assetUrl(path),
    poster: poster ? assetUrl(poster) : null, "aria-label": `Video of ${job[FIELD.id]}`,
  });
  video.addEventListener("error", () => video.replaceWith(noVideo(`${path} is missing or can't be played`)), { once: true });
  if (visibility && !poster) visibility.observe(video);
  return video;
}

function details(job) {
  const pairs = [["model", job[FIELD.model]], ["task", job[FIELD.task_id]], ["video", job[FIELD.video_info]]];
  if (job[FIELD.first_at] !== null) pairs.push(["first submitted", `${new Date(job[FIELD.first_at] * 1000).toISOString().slice(0, 19)}Z`]);
  if (job[FIELD.generate_s] !== null) pairs.push(["generated in", formatDuration(job[FIELD.generate_s])]);
  if (job[FIELD.download_s] !== null) pairs.push(["downloaded in", formatDuration(job[FIELD.download_s])]);
  if (job[FIELD.attempts] > 1) pairs.push(["attempts", `${job[FIELD.attempts]}, ${job[FIELD.throttled]} throttled`]);
  return pairs.filter(([, value]) => value);
}

function jobCard(job) {
  const state = job[FIELD.state];
  const body = htmlElement("div", { class: "body" },
    htmlElement("div", { class: "top" }, htmlElement("bdi", { class: "id" }, job[FIELD.id]), htmlElement("span", { class: `badge ${state}` }, state.replace("_", " "))));
  if (job[FIELD.cls] && state !== "succeeded") {
    body.append(htmlElement("p", { class: "error" }, `${job[FIELD.cls]}: `, htmlElement("bdi", {}, job[FIELD.message])));
  }
  if (job[FIELD.prompt]) body.append(htmlElement("p", { class: "prompt" }, htmlElement("bdi", { dir: "auto" }, job[FIELD.prompt])));
  const more = htmlElement("details", {}, htmlElement("summary", {}, "Details"),
    pairList([...details(job), ...job[FIELD.params], ...job[FIELD.metadata]]));
  body.append(more);
  const card = htmlElement("article", { class: "card" }, videoOf(job), body);
  more.addEventListener("toggle", () => card.classList.toggle("open", more.open));
  return card;
}

function drawGallery() {
  const pages = Math.ceil(view.jobs.length / PAGE_SIZE);
  const start = view.page * PAGE_SIZE;
  const gallery = document.getElementById("gallery");
  gallery.replaceChildren(...view.jobs.slice(start, start + PAGE_SIZE).map(jobCard));
  if (!view.jobs.length) gallery.append(htmlElement("p", { class: "muted" }, "No jobs match these filters."));
  const pagers = document.querySelectorAll("#jobs > .pager");
  pagers.forEach((pager) => pager.replaceChildren(...(pages > 1 ? pageButtons("Previous", "Next", view.page, pages, openPage) : [])));
}

function openPage(page) {
  view.page = page;
  drawGallery();
  document.querySelector("#jobs > .pager").scrollIntoView({ block: "start" });
}

function fillSelect(id, field) {
  const counts = new Map();
  for (const job of DATA.jobs) if (job[field]) counts.set(job[field], (counts.get(job[field]) || 0) + 1);
  const select = document.getElementById(id);
  for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    select.append(htmlElement("option", { value }, `${value.replaceAll("_", " ")} (${count.toLocaleString("en")})`));
  }
  select.addEventListener("change", filterJobs);
}

function debounce(callback, delayMs) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, delayMs);
  };
}

function drawCharts() {
  drawThroughput();
  drawGenerationTimes();
}

if (document.getElementById("jobs")) {
  fillSelect("state", FIELD.state);
  fillSelect("model", FIELD.model);
  fillSelect("cls", FIELD.cls);
  document.getElementById("search").addEventListener("input", debounce(filterJobs, 120));
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  drawCharts();
  filterJobs();
  let drawnWidth = document.body.clientWidth;
  new ResizeObserver(debounce(() => {
    // Filters change the height of the page; only a new width needs new charts.
    if (document.body.clientWidth === drawnWidth) return;
    drawnWidth = document.body.clientWidth;
    drawCharts();
    drawTimeline(view.jobs);
  }, 100)).observe(document.body);
}
