// Verdicts. `runner review` saves each at once; a page without it keeps them in this browser, and offers them as a file.
const verdicts = new Map();
const STORED_AS = `runner verdicts ${location.pathname}`;
const saved = DATA.review ? null : loadStored();
let saving = Promise.resolve();

function loadStored() {
  try {
    return new Map(JSON.parse(localStorage.getItem(STORED_AS) ?? "[]"));
  } catch {
    return new Map();
  }
}

function verdictOf(job) {
  return verdicts.get(job[FIELD.id]) ?? null;
}

function verdictButtons(job) {
  const group = htmlElement("div", { class: "judge", role: "group", "aria-label": `Verdict on ${job[FIELD.id]}` });
  for (const [verdict, label] of [["keep", "✓ Keep"], ["reject", "✕ Reject"]]) {
    group.append(button(label, () => judge(job, verdict), { "data-verdict": verdict, class: `small ${verdict}` }));
  }
  return group;
}

function markVerdict(element) {
  const verdict = verdictOf(element.job);
  element.classList.toggle("kept", verdict === "keep");
  element.classList.toggle("rejected", verdict === "reject");
  for (const each of element.querySelectorAll("[data-verdict]")) {
    each.setAttribute("aria-pressed", String(each.dataset.verdict === verdict));
  }
}

function markVerdicts() {
  for (const card of document.querySelectorAll("#cards .card, #large .clip")) markVerdict(card);
  const clips = DATA.jobs.filter((job) => job[FIELD.video]);
  const kept = clips.filter((job) => verdictOf(job) === "keep").length, rejected = clips.filter((job) => verdictOf(job) === "reject").length;
  const place = document.getElementById("verdicts");
  place.hidden = !(kept || rejected || DATA.review);
  place.replaceChildren(htmlElement("span", { id: "judged", role: "status" }, `${kept} kept, ${rejected} rejected, ${clips.length - kept - rejected} left`));
  if (saved?.size) {
    place.append(button("Download verdicts", downloadVerdicts), copyButton("Copy the command that adds them", () => DATA.append));
  }
}

function judge(job, verdict) {
  const before = verdictOf(job), at = new Date().toISOString();
  verdicts.set(job[FIELD.id], verdict);
  markVerdicts();
  const line = { job_id: job[FIELD.id], verdict, at };
  if (saved) {
    saved.set(line.job_id, line);
    try {
      localStorage.setItem(STORED_AS, JSON.stringify([...saved]));
    } catch {
      showTrouble("This browser keeps no data for this page: download the verdicts before you close it.");
    }
    markVerdicts();
    return;
  }
  // One after the other, so that of two verdicts on a clip the later one is the last in the file.
  saving = saving.then(() => saveVerdict(line)).then(() => showTrouble(""), (error) => {
    if (before) verdicts.set(line.job_id, before);
    else verdicts.delete(line.job_id);
    markVerdicts();
    showTrouble(`The verdict on ${line.job_id} was not saved: ${error.message}`);
  });
}

async function saveVerdict({ job_id, verdict }) {
  let response;
  try {
    response = await fetch("verdicts", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ job_id, verdict }) });
  } catch {
    throw new Error("runner review does not answer; start it again, and open its new address");
  }
  if (!response.ok) throw new Error((await response.text()).slice(0, 300));
}

function showTrouble(text) {
  const place = document.getElementById("trouble");
  place.hidden = !text;
  place.textContent = text;
}

function downloadVerdicts() {
  const lines = [...saved.values()].map((line) => `${JSON.stringify(line)}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  const link = htmlElement("a", { href: url, download: "verdicts.jsonl" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function loadVerdicts() {
  for (const job of DATA.jobs) {
    const id = job[FIELD.id], line = saved?.get(id);
    if (job[FIELD.verdict]) verdicts.set(id, job[FIELD.verdict]);
    if (!line) continue;
    // The run knows it by now, or it was given to an earlier take.
    if (line.verdict === job[FIELD.verdict] || Date.parse(line.at) / 1000 < job[FIELD.submitted_at]) saved.delete(id);
    else verdicts.set(id, line.verdict);
  }
}

// A clip that fills the window, with all that is known of it.
function enlarge(job) {
  const dialog = document.getElementById("large");
  const largeVideo = (path, label) => htmlElement("video", { controls: "", playsinline: "", loop: "", src: assetUrl(path), "aria-label": label });
  const video = largeVideo(job[FIELD.video], `Clip of ${job[FIELD.id]}`);
  const takes = job[FIELD.takes].map((path, index) => largeVideo(path, `Other take ${index + 1} of ${job[FIELD.id]}`));
  const neighbors = htmlElement("div", { class: "judge" }, button("Previous", () => enlargeNext(-1)), button("Next", () => enlargeNext(1)), button("Close", () => dialog.close()));
  const text = htmlElement("div", { class: "body" }, htmlElement("h2", {}, foreign(job[FIELD.id])), neighbors, verdictButtons(job),
    htmlElement("p", {}, foreign(job[FIELD.prompt], { dir: "auto" })), allDetails(job));
  const clip = htmlElement("div", { class: "clip", tabindex: "-1" }, htmlElement("div", { class: "takes" }, video, ...takes), text);
  clip.job = job;
  dialog.replaceChildren(clip);
  dialog.setAttribute("aria-label", `Clip of ${job[FIELD.id]}`);
  markVerdict(clip);
  for (const other of document.querySelectorAll("#cards video")) other.pause();
  if (!dialog.open) dialog.showModal();
  clip.focus();
  play(video);
}

function enlargeNext(step) {
  const next = shown.clips[shown.clips.indexOf(largeJob()) + step];
  if (next) enlarge(next);
}

function largeJob() {
  return document.querySelector("#large[open] .clip")?.job ?? null;
}

// Back to the clip that was looked at last.
function leaveLarge() {
  const dialog = document.getElementById("large"), job = dialog.querySelector(".clip")?.job;
  dialog.replaceChildren();
  if (!job) return;
  if (!view.by) {
    const page = Math.floor(shown.clips.indexOf(job) / pageSize());
    if (page >= 0 && page !== currentPage()) openPage(page);
  }
  focusCard(cards().find((card) => card.job === job));
}
