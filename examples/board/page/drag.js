// Lets the user move cards: by dragging them with a mouse, a pen or a finger, and with the
// arrow keys on a card's handle.

import { COLUMNS } from "./view.js";

// A pointer that moves less than this has clicked.
const THRESHOLD_PX = 5;
// Near the edges of the window the page scrolls while a card is dragged.
const EDGE_PX = 56;
const SCROLL_PX = 14;

/**
 * @param view The {@link View} that shows the cards.
 * @param cardsOf Returns the cards of a column, in their order.
 * @param move Called with a card's id, a column, and the id of the card that is to follow; null
 * means the end of the column.
 */
export function makeDraggable(view, cardsOf, move) {
  document.addEventListener("pointerdown", (event) => {
    const card = event.target.closest(".card");
    if (card === null || event.button !== 0 || event.target.closest(".editor, .delete")) return;
    // Elsewhere a finger scrolls the page.
    if (event.pointerType === "touch" && event.target.closest(".grip") === null) return;
    new Drag(card, event, move);
  });
  document.addEventListener("keydown", (event) => {
    const id = event.target.closest(".grip")?.closest(".card").dataset.id;
    const place = id && placeAfterKey(id, event.key, cardsOf);
    if (!place) return;
    event.preventDefault();
    move(id, place.column, place.before);
    const cards = cardsOf(place.column);
    const at = cards.findIndex((card) => card.id === id);
    const where = `${COLUMNS.get(place.column)}, ${at + 1} of ${cards.length}`;
    view.announce(`${cards[at].title}: ${where}`);
  });
}

/** Returns the place to which an arrow key moves a card; nothing if it cannot go there. */
function placeAfterKey(id, key, cardsOf) {
  const columns = [...COLUMNS.keys()];
  const from = columns.findIndex((it) => cardsOf(it).some((card) => card.id === id));
  if (from === -1) return undefined;
  const cards = cardsOf(columns[from]);
  const at = cards.findIndex((card) => card.id === id);
  const to = { ArrowLeft: from - 1, ArrowRight: from + 1 }[key];
  if (columns[to] !== undefined) {
    return { column: columns[to], before: cardsOf(columns[to])[at]?.id ?? null };
  }
  if (key === "ArrowUp" && at > 0) return { column: columns[from], before: cards[at - 1].id };
  if (key === "ArrowDown" && at < cards.length - 1) {
    return { column: columns[from], before: cards[at + 2]?.id ?? null };
  }
  return undefined;
}

/** One card that is being dragged. */
class Drag {
  #card;
  #pointer;
  #start;
  #offset;
  #move;
  #ghost;
  #place;
  #listening = new AbortController();

  constructor(card, event, move) {
    this.#card = card;
    this.#pointer = event.pointerId;
    this.#start = { x: event.clientX, y: event.clientY };
    const { left, top } = card.getBoundingClientRect();
    this.#offset = { x: event.clientX - left, y: event.clientY - top };
    this.#move = move;
    this.#listen("pointermove", (it) => this.#moved(it));
    this.#listen("pointerup", () => this.#end(this.#place));
    this.#listen("pointercancel", () => this.#end());
    const { signal } = this.#listening;
    const cancel = ({ key }) => key === "Escape" && this.#end();
    document.addEventListener("keydown", cancel, { signal });
  }

  #listen(type, callback) {
    const { signal } = this.#listening;
    const own = (event) => event.pointerId === this.#pointer && callback(event);
    document.addEventListener(type, own, { signal });
  }

  #moved({ clientX: x, clientY: y }) {
    const distance = Math.hypot(x - this.#start.x, y - this.#start.y);
    if (this.#ghost === undefined && distance < THRESHOLD_PX) return;
    this.#ghost ??= this.#lift();
    const { x: dx, y: dy } = this.#offset;
    this.#ghost.style.transform = `translate(${x - dx}px, ${y - dy}px) rotate(2deg)`;
    if (y < EDGE_PX) scrollBy(0, -SCROLL_PX);
    if (y > innerHeight - EDGE_PX) scrollBy(0, SCROLL_PX);
    this.#show(this.#placeAt(x, y));
  }

  #lift() {
    const ghost = this.#card.cloneNode(true);
    ghost.classList.add("ghost");
    ghost.inert = true;
    ghost.style.width = `${this.#card.offsetWidth}px`;
    this.#card.classList.add("dragged");
    document.body.append(ghost);
    return ghost;
  }

  /** Returns the column under the pointer, and the card in it that would follow. */
  #placeAt(x, y) {
    const section = document.elementFromPoint(x, y)?.closest(".column");
    if (!section) return undefined;
    const cards = [...section.querySelectorAll(".card:not(.dragged)")];
    const following = cards.find((card) => {
      const { top, height } = card.getBoundingClientRect();
      return y < top + height / 2;
    });
    return { section, following };
  }

  #show(place) {
    this.#place = place;
    for (const marked of document.querySelectorAll(".drop-before, .drop-end, .drop-here")) {
      marked.classList.remove("drop-before", "drop-end", "drop-here");
    }
    if (place === undefined) return;
    place.section.classList.add("drop-here");
    if (place.following) place.following.classList.add("drop-before");
    else place.section.querySelector(".cards").classList.add("drop-end");
  }

  /** Ends the drag; with a place the card goes there. */
  #end(place) {
    this.#listening.abort();
    if (this.#ghost === undefined) return;
    this.#ghost.remove();
    this.#card.classList.remove("dragged");
    this.#show(undefined);
    ignoreNextClick();
    // Somebody else may have deleted the card meanwhile.
    if (place === undefined || !this.#card.isConnected) return;
    const { section, following } = place;
    const isWhereItWas =
      section.contains(this.#card) && this.#card.nextElementSibling === (following ?? null);
    if (isWhereItWas) return;
    this.#move(this.#card.dataset.id, section.dataset.column, following?.dataset.id ?? null);
  }
}

/** The pointer that drops a card is released, which is a click on what is below it. */
function ignoreNextClick() {
  const ignore = (event) => event.stopPropagation();
  document.addEventListener("click", ignore, { capture: true });
  setTimeout(() => document.removeEventListener("click", ignore, { capture: true }));
}
