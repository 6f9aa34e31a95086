// Shows the board. Knows neither the relay nor the backend: what the user does is passed to
// the actions that it was made with. Text is always inserted as text, never as HTML.

/** The columns and their titles. */
export const COLUMNS = new Map([
  ["todo", "To do"],
  ["doing", "Doing"],
  ["done", "Done"],
]);

const CONNECTION_TEXTS = {
  connecting: "Connecting",
  resuming: "Catching up",
  open: "Live",
  waiting: "Reconnecting",
  closed: "Disconnected",
};

const NOTICE_MS = 5_000;

/** The page. */
export class View {
  #actions;
  #cards = new Map();
  #user;
  #noticeTimer;
  /** True while cards are put in their order: one that has the focus may lose it for a moment. */
  #isPlacing = false;

  /** @param actions Functions: `create`, `rename`, `remove`, `types` and `stopsTyping`. */
  constructor(actions) {
    this.#actions = actions;
    for (const [column, title] of COLUMNS) element("columns").append(this.#column(column, title));
  }

  /** Shows cards: those that `cardsOf` returns for each column. */
  showCards(cardsOf) {
    const before = this.#places();
    const focused = document.activeElement;
    const shown = new Set();
    this.#isPlacing = true;
    for (const section of document.querySelectorAll(".column")) {
      const cards = cardsOf(section.dataset.column);
      const items = cards.map((card) => this.#card(card));
      place(section.querySelector(".cards"), items);
      section.querySelector(".count").textContent = cards.length;
      for (const { id } of cards) shown.add(id);
    }
    for (const [id, item] of this.#cards) {
      if (shown.has(id)) continue;
      item.remove();
      this.#cards.delete(id);
    }
    if (focused.isConnected && focused !== document.activeElement) focused.focus();
    this.#isPlacing = false;
    this.#animate(before);
  }

  /** Shows who is typing on a card. */
  showTyping(id, users) {
    const item = this.#cards.get(id);
    if (item === undefined) return;
    const text = item.querySelector(".typing");
    text.hidden = users.length === 0;
    text.textContent = `${users.join(", ")} ${users.length === 1 ? "is" : "are"} typing…`;
  }

  /** Shows the user of this page. */
  showUser(user) {
    this.#user = user;
    this.showPeople([]);
  }

  /** Shows the other users who are on the board. */
  showPeople(users) {
    const others = users.filter((it) => it !== this.#user).sort();
    const people = [this.#user, ...others].map((user) => {
      const item = clone("person");
      item.dataset.user = user;
      item.style.setProperty("--hue", hueOf(user));
      item.querySelector(".name").textContent = user === this.#user ? `${user} (you)` : user;
      return item;
    });
    element("people").replaceChildren(...people);
  }

  /** Shows the state of the relay's connection. */
  showConnection({ name }) {
    element("connection").dataset.state = name;
    element("connection").textContent = CONNECTION_TEXTS[name];
  }

  /** Shows a message for a while. */
  notify(text) {
    const notice = element("notice");
    notice.textContent = text;
    notice.hidden = false;
    clearTimeout(this.#noticeTimer);
    this.#noticeTimer = setTimeout(() => {
      notice.hidden = true;
    }, NOTICE_MS);
  }

  /** Tells users of a screen reader what has happened. */
  announce(text) {
    element("announcement").textContent = text;
  }

  #column(column, title) {
    const section = clone("column");
    section.dataset.column = column;
    section.querySelector(".name").textContent = title;
    section.querySelector(".cards").setAttribute("aria-label", title);
    const form = section.querySelector(".new");
    const input = form.elements.title;
    input.placeholder = "Add a card";
    input.setAttribute("aria-label", `New card in ${title}`);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#actions.create(column, input.value);
      form.reset();
    });
    return section;
  }

  /** Returns the element of a card, with its title as it is now. */
  #card({ id, title }) {
    const item = this.#cards.get(id) ?? this.#newCard(id);
    this.#cards.set(id, item);
    item.querySelector(".title").textContent = title;
    item.querySelector(".grip").setAttribute("aria-label", `Move ${title}`);
    item.querySelector(".delete").setAttribute("aria-label", `Delete ${title}`);
    return item;
  }

  #newCard(id) {
    const item = clone("card");
    item.dataset.id = id;
    item.querySelector(".title").addEventListener("click", () => this.#edit(item));
    item.querySelector(".delete").addEventListener("click", () => this.#actions.remove(id));
    const editor = item.querySelector(".editor");
    editor.addEventListener("input", () => this.#actions.types(id));
    editor.addEventListener("blur", () => this.#isPlacing || this.#endEdit(item, true));
    editor.addEventListener("keydown", ({ key }) => {
      if (key === "Enter") this.#endEdit(item, true);
      if (key === "Escape") this.#endEdit(item, false);
    });
    return item;
  }

  #edit(item) {
    const title = item.querySelector(".title");
    const editor = item.querySelector(".editor");
    editor.value = title.textContent;
    title.hidden = true;
    editor.hidden = false;
    editor.select();
  }

  #endEdit(item, isSaved) {
    const title = item.querySelector(".title");
    const editor = item.querySelector(".editor");
    if (editor.hidden) return;
    const hadFocus = editor === document.activeElement;
    const text = editor.value.trim();
    editor.hidden = true;
    title.hidden = false;
    if (hadFocus) title.focus();
    this.#actions.stopsTyping(item.dataset.id);
    if (isSaved && text !== "" && text !== title.textContent) {
      this.#actions.rename(item.dataset.id, text);
    }
  }

  #places() {
    const items = [...this.#cards.values()];
    return new Map(items.map((item) => [item, item.getBoundingClientRect()]));
  }

  /** Lets cards glide from where they were, so that one sees what has moved. */
  #animate(before) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const [item, { left, top }] of before) {
      const now = item.getBoundingClientRect();
      const [x, y] = [left - now.left, top - now.top];
      if (!item.isConnected || (x === 0 && y === 0)) continue;
      const from = { transform: `translate(${x}px, ${y}px)` };
      item.animate([from, { transform: "none" }], { duration: 180, easing: "ease-out" });
    }
  }
}

/** Makes `items` the children of a list, in this order, and moves no more than it has to. */
function place(list, items) {
  items.forEach((item, index) => {
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
}

function element(id) {
  return document.getElementById(id);
}

function clone(id) {
  return element(id).content.firstElementChild.cloneNode(true);
}

/** Returns a colour for a user, the same on every page. */
function hueOf(user) {
  return [...user].reduce((hash, letter) => (hash * 31 + letter.codePointAt(0)) % 360, 7);
}
