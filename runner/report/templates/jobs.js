const PAGE_SIZE = 24;
const view = { jobs: DATA.jobs, page: 0 };
const haystacks = new Map();

// What a search looks through, made when the first search needs it.
function haystack(job) {
  let text = haystacks.get(job);
  if (text === undefined) {
    const pairs = [...job[FIELD.params], ...job[FIELD.metadata]].flat();
    const own = [FIELD.id, FIELD.model, FIELD.prompt, FIELD.message, FIELD.task_id].map((place) => job[place]);
    text = [...own, ...pairs].join("\n").toLowerCase();
    haystacks.set(job, text);
  }
  return text;
}

function chosen(id) {
  return document.getElementById(id).value;
}

function filterJobs() {
  const state = chosen("state"), model = chosen("model"), cls = chosen("cls");
  const words = chosen("search").toLowerCase().split(/\s+/).filter(Boolean);
  view.jobs = DATA.jobs.filter((job) =>
    (!state || job[FIELD.state] === state) && (!model || job[FIELD.model] === model) && (!cls || job[FIELD.cls] === cls)
    && (!words.length || words.every((word) => haystack(job).includes(word))));
  view.page = 0;
  const found = view.jobs.length.toLocaleString("en"), all = DATA.jobs.length.toLocaleString("en");
  document.getElementById("found").textContent = `${found} of ${all} jobs`;
  drawTimeline(view.jobs);
  drawGallery();
}

function assetAddress(path) {
  return path.split("/").map(encodeURIComponent).join("/");
}

function pairList(pairs) {
  const list = element("dl", { class: "pairs" });
  for (const [key, value] of pairs) list.append(element("dt", {}, element("bdi", {}, key)), element("dd", {}, element("bdi", {}, value)));
  return list;
}

// A video takes nothing from the disk until its card is in sight.
const sight = "IntersectionObserver" in window ? new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    entry.target.preload = "metadata";
    sight.unobserve(entry.target);
  }
}, { rootMargin: "200px" }) : null;

function stage(job) {
  const path = job[FIELD.video];
  if (!path) return element("div", { class: "stage" }, job[FIELD.state] === "undelivered" ? "The video is not here yet" : "No video");
  const poster = job[FIELD.poster];
  const video = element("video", {
    controls: "", playsinline: "", preload: "none", src: assetAddress(path),
    poster: poster ? assetAddress(poster) : null, "aria-label": `Video of ${job[FIELD.id]}`,
  });
  video.addEventListener("error", () => video.replaceWith(element("div", { class: "stage" }, `${path} is not beside this report`)), { once: true });
  if (sight && !poster) sight.observe(video);
  return video;
}

function times(job) {
  const pairs = [["model", job[FIELD.model]], ["task", job[FIELD.task_id]], ["video", job[FIELD.facts]]];
  if (job[FIELD.first_at] !== null) pairs.push(["first sent", `${new Date(job[FIELD.first_at] * 1000).toISOString().slice(0, 19)}Z`]);
  if (job[FIELD.generate_s] !== null) pairs.push(["generated in", seconds(job[FIELD.generate_s])]);
  if (job[FIELD.download_s] !== null) pairs.push(["downloaded in", seconds(job[FIELD.download_s])]);
  if (job[FIELD.attempts] > 1) pairs.push(["attempts", `${job[FIELD.attempts]}, ${job[FIELD.throttled]} throttled`]);
  return pairs.filter(([, value]) => value);
}

function jobCard(job) {
  const state = job[FIELD.state];
  const body = element("div", { class: "body" },
    element("div", { class: "top" }, element("bdi", { class: "id" }, job[FIELD.id]), element("span", { class: `badge ${state}` }, state.replace("_", " "))));
  if (job[FIELD.cls] && state !== "succeeded") {
    body.append(element("p", { class: "error" }, `${job[FIELD.cls]}: `, element("bdi", {}, job[FIELD.message])));
  }
  if (job[FIELD.prompt]) body.append(element("p", { class: "prompt" }, element("bdi", { dir: "auto" }, job[FIELD.prompt])));
  const more = element("details", {}, element("summary", {}, "Parameters and times"),
    pairList([...times(job), ...job[FIELD.params], ...job[FIELD.metadata]]));
  body.append(more);
  const card = element("article", { class: "card" }, stage(job), body);
  more.addEventListener("toggle", () => card.classList.toggle("open", more.open));
  return card;
}

function drawGallery() {
  const pages = Math.ceil(view.jobs.length / PAGE_SIZE);
  const start = view.page * PAGE_SIZE;
  const gallery = document.getElementById("gallery");
  gallery.replaceChildren(...view.jobs.slice(start, start + PAGE_SIZE).map(jobCard));
  if (!view.jobs.length) gallery.append(element("p", { class: "quiet" }, "No job is like that."));
  document.querySelectorAll("#jobs > .pager").forEach((pager) => pager.replaceChildren(...(pages > 1 ? pageButtons(pages) : [])));
}

function pageButtons(pages) {
  const turn = (words, page) => {
    const button = element("button", { type: "button" }, words);
    button.disabled = page < 0 || page >= pages;
    button.addEventListener("click", () => {
      view.page = page;
      drawGallery();
      document.querySelector("#jobs > .pager").scrollIntoView({ block: "start" });
    });
    return button;
  };
  return [turn("Previous", view.page - 1), element("span", {}, `${view.page + 1} of ${pages.toLocaleString("en")}`), turn("Next", view.page + 1)];
}

function offer(id, place) {
  const counts = new Map();
  for (const job of DATA.jobs) if (job[place]) counts.set(job[place], (counts.get(job[place]) || 0) + 1);
  const select = document.getElementById(id);
  for (const [value, count] of [...counts].sort((one, other) => other[1] - one[1])) {
    select.append(element("option", { value }, `${value.replaceAll("_", " ")} (${count.toLocaleString("en")})`));
  }
  select.addEventListener("change", filterJobs);
}

function later(act, wait_ms) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, wait_ms);
  };
}

function drawCharts() {
  drawThroughput();
  drawTimes();
}

if (document.getElementById("jobs")) {
  offer("state", FIELD.state);
  offer("model", FIELD.model);
  offer("cls", FIELD.cls);
  document.getElementById("search").addEventListener("input", later(filterJobs, 120));
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  drawCharts();
  filterJobs();
  let drawn = document.body.clientWidth;
  new ResizeObserver(later(() => {
    // The page grows and shrinks with every filter; only another width needs another drawing.
    if (document.body.clientWidth === drawn) return;
    drawn = document.body.clientWidth;
    drawCharts();
    drawTimeline(view.jobs);
  }, 100)).observe(document.body);
}
