function cards() {
  return [...document.querySelectorAll("#cards .card")];
}

function currentCard() {
  return document.querySelector("#cards .card.current");
}

function makeCurrent(card) {
  for (const other of cards()) {
    const isCurrent = other === card;
    other.classList.toggle("current", isCurrent);
    other.tabIndex = isCurrent ? 0 : -1;
  }
}

function focusCard(card) {
  if (!card) return;
  // Not only by the event of the focus, which waits while the window has none.
  makeCurrent(card);
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

function center(element) {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  return [(left + right) / 2, (top + bottom) / 2];
}

// The nearest card above or below.
function cardInRow(card, direction) {
  const [x, y] = center(card);
  let best = null, least = Infinity;
  for (const other of cards()) {
    const [otherX, otherY] = center(other), down = (otherY - y) * direction;
    const distance = down * 4 + Math.abs(otherX - x);
    if (down > card.offsetHeight / 3 && distance < least) [best, least] = [other, distance];
  }
  return best;
}

// Moves by one clip, to the next page at the end of this one.
function moveBy(step) {
  const all = cards(), index = all.indexOf(currentCard());
  if (index < 0) return focusCard(all[0]);
  if (all[index + step]) return focusCard(all[index + step]);
  const page = currentPage() + step;
  if (page < 0 || page >= pageCount()) return undefined;
  openPage(page);
  return focusCard(cards().at(step > 0 ? 0 : -1));
}

function moveToRow(direction) {
  const card = currentCard();
  if (!card) return moveBy(1);
  return focusCard(cardInRow(card, direction)) ?? undefined;
}

function judgeAndGoOn(verdict) {
  const large = largeJob();
  if (large) {
    judge(large, verdict);
    return enlargeNext(1);
  }
  const card = currentCard();
  if (!card) return undefined;
  judge(card.job, verdict);
  return moveBy(1);
}

function playCurrent() {
  const video = document.querySelector("#large[open] video") ?? currentCard()?.querySelector("video");
  if (video) togglePlay(video);
}

const KEYS = {
  ArrowRight: () => (largeJob() ? enlargeNext(1) : moveBy(1)),
  ArrowLeft: () => (largeJob() ? enlargeNext(-1) : moveBy(-1)),
  ArrowDown: () => (largeJob() ? undefined : moveToRow(1)),
  ArrowUp: () => (largeJob() ? undefined : moveToRow(-1)),
  " ": playCurrent,
  Enter: () => enlarge(currentCard().job),
  k: () => judgeAndGoOn("keep"),
  r: () => judgeAndGoOn("reject"),
};

// The key, whatever the shift lock, and letters by their place where the layout has no Latin ones.
function keyOf(event) {
  if (event.key.length !== 1) return event.key;
  const isLatin = event.key.charCodeAt(0) < 128;
  return isLatin ? event.key.toLowerCase() : { KeyK: "k", KeyR: "r" }[event.code] ?? event.key;
}

// Whether a key is the page's own where it was pressed: not in a field, and not where the browser uses it.
function isShortcut(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented || !KEYS[keyOf(event)]) return false;
  const target = event.target;
  if (target.closest("input, select, textarea")) return false;
  const isPress = event.key === " " || event.key === "Enter", isArrow = event.key.startsWith("Arrow");
  if (isPress && target.closest("button, a, summary, video[controls]")) return false;
  if (isArrow && target.closest("video[controls], .scroll") && !target.closest(".card")) return false;
  const isInGallery = Boolean(target.closest(".card") || largeJob());
  // Elsewhere the arrows and the space bar scroll; only the arrow to the right enters the gallery.
  return isInGallery || (event.key === "ArrowRight" && target === document.body) || (!isPress && !isArrow && Boolean(currentCard()));
}

function connectKeyboard() {
  document.addEventListener("keydown", (event) => {
    if (!isShortcut(event)) return;
    event.preventDefault();
    KEYS[keyOf(event)]();
  });
  document.getElementById("large").addEventListener("close", leaveLarge);
}
