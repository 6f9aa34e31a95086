// What the page knows of a board, whatever comes in which order.

import assert from "node:assert/strict";
import { test } from "node:test";
import { BoardState } from "../page/state.js";

const card = (id, revision, more = {}) => ({
  id,
  column: "todo",
  rank: revision,
  title: `${id}${revision}`,
  revision,
  ...more,
});
const titles = (state, column = "todo") => state.cards(column).map((it) => it.title);

/** Returns all orders of a list. */
function ordersOf(items) {
  if (items.length < 2) return [items];
  return items.flatMap((item, index) => {
    const others = items.filter((_, other) => other !== index);
    return ordersOf(others).map((order) => [item, ...order]);
  });
}

test("the order in which changes come makes no difference, and neither does repeating them", () => {
  const changes = [
    (state) => state.save(card("a", 1)),
    (state) => state.save(card("b", 2)),
    (state) => state.save(card("a", 3)),
    (state) => state.remove("b", 4),
    (state) => state.load({ cards: [card("a", 3), card("b", 2)], revision: 3 }),
  ];
  for (const order of ordersOf(changes)) {
    const state = new BoardState();
    for (const change of [...order, order[0]]) change(state);
    assert.deepEqual(titles(state), ["a3"]);
  }
});

test("a load removes what was deleted, and keeps what is newer", () => {
  const state = new BoardState();
  state.save(card("deleted", 1));
  state.save(card("newer", 5));
  state.load({ cards: [card("a", 2)], revision: 4 });
  assert.deepEqual(titles(state), ["a2", "newer5"]);
});

test("a rank that JSON leaves out is 0", () => {
  const state = new BoardState();
  state.save(card("b", 2));
  state.save(card("a", 1, { rank: undefined }));
  assert.deepEqual(titles(state), ["a1", "b2"]);
});

test("a move is shown at once, and ends as the backend has it", () => {
  const state = new BoardState();
  state.load({ cards: [card("a", 1), card("b", 2), card("c", 3)], revision: 3 });
  const settle = state.move("c", "todo", "b");
  assert.deepEqual(titles(state), ["a1", "c3", "b2"]);
  settle();
  assert.deepEqual(titles(state), ["a1", "b2", "c3"]);
});

test("the answer to a move does not undo a later one", () => {
  const state = new BoardState();
  state.save(card("a", 1));
  const settle = state.move("a", "doing", null);
  state.move("a", "done", null);
  settle();
  assert.deepEqual(titles(state, "done"), ["a1"]);
});

test("a card that is deleted while it is moved is gone", () => {
  const state = new BoardState();
  state.save(card("a", 1));
  const settle = state.move("a", "done", null);
  state.remove("a", 2);
  assert.deepEqual(titles(state, "done"), []);
  settle();
  assert.equal(state.card("a"), undefined);
});
