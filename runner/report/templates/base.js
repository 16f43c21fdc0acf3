"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const FIELD = Object.fromEntries(DATA.fields.map((name, index) => [name, index]));

// Text from the run is added as text nodes and attributes, never as markup.
function htmlElement(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svgElement(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function button(label, onClick, attributes = {}) {
  const element = htmlElement("button", { type: "button", class: "small", ...attributes }, label);
  element.addEventListener("click", onClick);
  return element;
}

function foreign(text, attributes = {}) {
  return htmlElement("bdi", attributes, text);
}

// Formats a duration like `format_duration` in core/units.py.
function formatDuration(seconds) {
  if (seconds < 0.9995) return seconds ? `${Math.round(seconds * 1000)}ms` : "0s";
  if (seconds < 9.95 && Math.round(seconds * 10) !== Math.round(seconds) * 10) return `${seconds.toFixed(1)}s`;
  for (const [size, unit, smaller, smallerUnit] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
    const rounded = Math.round(seconds / smaller) * smaller;
    if (rounded < size) continue;
    const rest = (rounded % size) / smaller;
    return `${Math.floor(rounded / size)}${unit}${rest ? ` ${rest}${smallerUnit}` : ""}`;
  }
  return `${Math.round(seconds)}s`;
}

// Formats a size like `format_size` in core/units.py.
function formatSize(bytes) {
  for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    const amount = bytes / size;
    if (amount >= 0.9995) return `${amount >= 100 ? Math.round(amount) : Number(amount.toPrecision(3))} ${unit}`;
  }
  return `${bytes} B`;
}

function formatCount(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

function isoDay(date) {
  return `${date.getFullYear()}-${twoDigits(date.getMonth() + 1)}-${twoDigits(date.getDate())}`;
}

function clock(date) {
  return `${twoDigits(date.getHours())}:${twoDigits(date.getMinutes())}`;
}

// Formats a time in the reader's time zone, as precisely as a chart of this span needs.
function formatTime(at, spanSeconds) {
  const date = new Date(at * 1000);
  if (Number.isNaN(date.getTime())) return "";
  if (spanSeconds > 2 * 86400) return `${isoDay(date).slice(5)} ${clock(date)}`;
  return spanSeconds > 600 ? clock(date) : `${clock(date)}:${twoDigits(date.getSeconds())}`;
}

const ZONE = new Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;

function formatMoment(at) {
  const date = new Date(at * 1000);
  return Number.isNaN(date.getTime()) ? "" : `${isoDay(date)} ${clock(date)} ${ZONE}`;
}

function localizeTimes() {
  for (const time of document.querySelectorAll("time")) {
    time.title = time.dateTime;
    time.textContent = formatMoment(Date.parse(time.dateTime) / 1000);
  }
}

function assetUrl(path) {
  if (/^https?:/.test(path)) return path;
  return path.split("/").map(encodeURIComponent).join("/");
}

// What a person sees of it: the rest of a web address is a signature.
function assetName(path) {
  return path.replace(/[?].*/, "");
}

function debounce(callback, delayMs) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, delayMs);
  };
}

async function copyText(text, element) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without the permission, or in an old browser.
    const area = htmlElement("textarea", { "aria-hidden": "true", class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = element.textContent;
  element.textContent = "Copied";
  setTimeout(() => { element.textContent = label; }, 1500);
}

function copyButton(label, text) {
  return button(label, (event) => copyText(text(), event.currentTarget), { class: "small copy" });
}

// The buttons, the number and the total of a pager.
function pageControls(page, pages, open) {
  const go = (label, target) => {
    const element = button(label, () => open(target));
    element.disabled = target < 0 || target >= pages;
    return element;
  };
  const number = htmlElement("input", { type: "number", min: 1, max: pages, value: page + 1, "aria-label": "Page" });
  number.addEventListener("change", () => open(Math.min(pages, Math.max(1, Math.round(Number(number.value)) || 1)) - 1));
  return [go("Previous", page - 1), htmlElement("span", {}, "page ", number, ` of ${pages.toLocaleString("en")}`), go("Next", page + 1)];
}
