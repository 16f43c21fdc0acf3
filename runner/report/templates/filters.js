// What is shown. Every setting is in the address, so that it can be sent to a colleague and survives a reload.
const SETTINGS = { q: "", state: "", model: "", class: "", verdict: "", sort: "", order: "", by: "", size: "24", page: "" };
const view = { ...SETTINGS };
const searchTexts = new Map();
const MAX_OPTIONS = 40, MAX_COLUMNS = 12;

const OWN_SORTS = [
  ["finished", "time", (job) => job[FIELD.finished_at]],
  ["generate", "generation time", (job) => job[FIELD.generate_s]],
  ["duration", "duration", (job) => job[FIELD.duration_s]],
  ["bytes", "size", (job) => job[FIELD.bytes]],
  ["id", "id", (job) => job[FIELD.id]],
  ["model", "model", (job) => job[FIELD.model]],
];
const sorts = new Map(OWN_SORTS.map(([key, , value]) => [key, value]));

// The text that a search looks through, made when it is first needed.
function searchText(job) {
  let text = searchTexts.get(job);
  if (text === undefined) {
    const pairs = [...job[FIELD.params], ...job[FIELD.metadata], ...job[FIELD.checks], job[FIELD.warnings]].flat();
    const fields = [FIELD.id, FIELD.model, FIELD.prompt, FIELD.message, FIELD.task_id].map((field) => job[field]);
    text = [...fields, ...pairs].join("\n").toLowerCase();
    searchTexts.set(job, text);
  }
  return text;
}

function pairValue(field, key) {
  return (job) => job[field].find(([name]) => name === key)?.[1] ?? null;
}

// The keys of requests, metadata and checks with more than one value among the jobs, as [name, label, value, number of values].
function differingKeys() {
  const found = [];
  for (const [prefix, field] of [["request", FIELD.params], ["metadata", FIELD.metadata], ["check", FIELD.checks]]) {
    const values = new Map();
    for (const job of DATA.jobs) {
      for (const [key, value] of job[field]) {
        if (!values.has(key) && values.size >= MAX_OPTIONS) continue;
        const seen = values.get(key) ?? values.set(key, new Set()).get(key);
        if (seen.size <= MAX_COLUMNS) seen.add(value);
      }
    }
    for (const [key, seen] of values) {
      if (seen.size > 1) found.push([`${prefix}.${key}`, prefix === "request" ? key : `${prefix}.${key}`, pairValue(field, key), seen.size]);
    }
  }
  return found;
}

function compareValues(a, b) {
  const x = Number(a), y = Number(b);
  if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortJobs(jobs) {
  const value = sorts.get(view.sort);
  if (!value) {
    // Succeeded first, else in the order of the manifest.
    const rank = (job) => (job[FIELD.state] === "succeeded" ? 0 : 1);
    return [...jobs].sort((a, b) => rank(a) - rank(b));
  }
  const sign = view.order === "down" ? -1 : 1;
  const keyed = jobs.map((job) => [value(job), job]);
  const isMissing = ([key]) => key === null || key === undefined;
  const present = keyed.filter((item) => !isMissing(item)).sort(([a], [b]) => sign * compareValues(a, b));
  return [...present, ...keyed.filter(isMissing)].map(([, job]) => job);
}

function matchingJobs() {
  const words = view.q.toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.jobs.filter((job) =>
    (!view.state || job[FIELD.state] === view.state) && (!view.model || job[FIELD.model] === view.model)
    && (!view.class || (job[FIELD.cls] === view.class && job[FIELD.state] !== "succeeded"))
    && (!view.verdict || (verdictOf(job) ?? "none") === view.verdict)
    && (!words.length || words.every((word) => searchText(job).includes(word))));
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, usual] of Object.entries(SETTINGS)) {
    const value = given.get(name) ?? usual, control = document.getElementById(name);
    const isKnown = !control || control.tagName !== "SELECT" || [...control.options].some((option) => option.value === value);
    view[name] = isKnown ? value : usual;
    if (control) control.value = view[name];
  }
}

function writeAddress() {
  const kept = Object.entries(view).filter(([name, value]) => value !== SETTINGS[name]);
  const hash = `#${new URLSearchParams(kept)}`;
  if (hash !== (location.hash || "#")) history.replaceState(null, "", hash);
}

// Changes settings, and draws what follows from them; another selection starts at its first page.
function change(settings) {
  Object.assign(view, { page: "" }, settings);
  for (const name of Object.keys(settings)) {
    const control = document.getElementById(name);
    if (control) control.value = view[name];
  }
  writeAddress();
  draw();
}

function fillSelect(id, field, includes = () => true) {
  const counts = new Map();
  for (const job of DATA.jobs) if (job[field] && includes(job)) counts.set(job[field], (counts.get(job[field]) || 0) + 1);
  for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const label = `${field === FIELD.model ? value : value.replaceAll("_", " ")} (${count.toLocaleString("en")})`;
    document.getElementById(id).append(htmlElement("option", { value }, label));
  }
}

function fillSorts() {
  const sort = document.getElementById("sort"), by = document.getElementById("by");
  sort.append(htmlElement("option", { value: "" }, "succeeded first"));
  for (const [key, label] of OWN_SORTS) sort.append(htmlElement("option", { value: key }, label));
  const models = new Set(DATA.jobs.map((job) => job[FIELD.model]));
  if (models.size > 1 && models.size <= MAX_COLUMNS) by.append(htmlElement("option", { value: "model" }, "model"));
  for (const [key, label, value, count] of differingKeys()) {
    sorts.set(key, value);
    sort.append(htmlElement("option", { value: key }, label));
    if (count <= MAX_COLUMNS) by.append(htmlElement("option", { value: key }, label));
  }
}

function connectFilters() {
  fillSelect("state", FIELD.state);
  fillSelect("model", FIELD.model);
  fillSelect("class", FIELD.cls, (job) => job[FIELD.state] !== "succeeded");
  fillSorts();
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("q").addEventListener("input", debounce(() => change({ q: document.getElementById("q").value }), 120));
  for (const select of document.querySelectorAll(".filters select")) {
    select.addEventListener("change", () => change({ [select.id]: select.value }));
  }
  document.getElementById("reset").addEventListener("click", () => change({ ...SETTINGS, size: view.size }));
  for (const element of document.querySelectorAll("[data-filter]")) {
    element.addEventListener("click", () => {
      const { filter, value } = element.dataset;
      change({ ...SETTINGS, size: view.size, [filter]: view[filter] === value ? "" : value });
      if (!element.classList.contains("chip")) showSection("gallery");
    });
  }
  addEventListener("hashchange", () => {
    readAddress();
    draw();
  });
}

function markFilters() {
  for (const chip of document.querySelectorAll(".chip")) {
    chip.setAttribute("aria-pressed", String(view.state === chip.dataset.value));
  }
  document.getElementById("order").disabled = !view.sort;
  document.getElementById("reset").hidden = Object.entries(view).every(([name, value]) => name === "size" || value === SETTINGS[name]);
}

function showSection(id) {
  const section = document.getElementById(id);
  section.scrollIntoView({ block: "start" });
  section.focus({ preventScroll: true });
}

function connectSections() {
  // The address holds the filters, so that a link to a section must not replace it.
  for (const link of document.querySelectorAll(".bar a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      showSection(link.getAttribute("href").slice(1));
    });
  }
}
