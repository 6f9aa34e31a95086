// The database of the board: the order of cards, and what the outbox keeps.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { NotFoundError, Store } from "../backend/store.mjs";
import { compareCards } from "../page/rank.js";

let store;

beforeEach(() => {
  store = new Store(":memory:");
  store.createBoard("b", []);
});

afterEach(() => store.close());

const create = (title) => store.createCard("b", { title, column: "todo" });
const titles = () =>
  store
    .board("b")
    .cards.sort(compareCards)
    .map((card) => card.title);

/** Takes all events out of the outbox, as if the relay had stored them at offsets from 1 on. */
function sendAll() {
  const events = [];
  for (let event = store.nextEvent(); event !== undefined; event = store.nextEvent()) {
    events.push(JSON.parse(event.envelope));
    store.markSent(event.number, { epoch: "e", offset: String(events.length) });
  }
  return events;
}

test("each change has a revision of its own, and an event with it", () => {
  const card = create("a");
  const changed = store.changeCard("b", card.id, { title: "A" });
  const deleted = store.deleteCard("b", card.id);
  assert.deepEqual([card.revision, changed.revision, deleted.revision], [1, 2, 3]);
  assert.deepEqual(sendAll(), [
    { cardSaved: { card } },
    { cardSaved: { card: changed } },
    { cardDeleted: { cardId: card.id, boardId: "b", revision: 3 } },
  ]);
  assert.deepEqual(store.board("b").cards, []);
});

test("a card goes before the card that is named, or to the end", () => {
  const [a, , c] = ["a", "b", "c"].map(create);
  store.changeCard("b", c.id, { column: "todo", before: a.id });
  assert.deepEqual(titles(), ["c", "a", "b"]);
  store.changeCard("b", c.id, { column: "todo", before: null });
  assert.deepEqual(titles(), ["a", "b", "c"]);
  store.changeCard("b", a.id, { column: "todo", before: "deleted meanwhile" });
  assert.deepEqual(titles(), ["b", "c", "a"]);
});

test("cards can be put between the same neighbours for ever", () => {
  const [first, x, y] = ["first", "x", "y"].map(create);
  for (let round = 0; round < 100; round += 1) {
    const [above, below] = round % 2 === 0 ? [y, x] : [x, y];
    store.changeCard("b", above.id, { column: "todo", before: below.id });
    assert.deepEqual(titles(), ["first", above.title, below.title]);
  }
  store.changeCard("b", first.id, { column: "todo", before: null });
  assert.equal(titles().at(-1), "first");
});

test("the position is that of the last event that was sent", () => {
  assert.equal(store.board("b").position, null);
  create("a");
  assert.equal(store.board("b").position, null);
  sendAll();
  create("b");
  assert.deepEqual(store.board("b").position, { epoch: "e", offset: "1" });
});

test("an event that is refused for good does not hold up the others", () => {
  create("a");
  create("b");
  store.markRefused(store.nextEvent().number, "why");
  assert.equal(sendAll()[0].cardSaved.card.title, "b");
});

test("a change of a card that does not exist leaves no event", () => {
  assert.throws(() => store.changeCard("b", "none", { title: "a" }), NotFoundError);
  assert.throws(() => store.createCard("none", { title: "a", column: "todo" }), NotFoundError);
  assert.throws(() => store.deleteCard("b", "none"), NotFoundError);
  assert.equal(store.nextEvent(), undefined);
});
