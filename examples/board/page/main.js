// The board in the browser: loads the cards from the backend, follows their changes over the
// relay, and sends what the user does to the backend.

import { json, Sidewire } from "/sdk/index.js";
import { call } from "./api.js";
import { makeDraggable } from "./drag.js";
import { OwnTyping, TypingUsers, userOfTab } from "./people.js";
import { BoardState } from "./state.js";
import { View } from "./view.js";

const user = userOfTab();
const { relay: relayUrl, schema, board } = await call("GET", "/settings");
const topic = `board:${board}`;
const state = new BoardState();
let lastChange = Promise.resolve();
const typing = new TypingUsers((cardId) => view.showTyping(cardId, typing.on(cardId)));

const relay = new Sidewire(relayUrl, {
  getToken: async () => (await call("POST", "/token", { user })).token,
  schema: json(schema),
});
const ownTyping = new OwnTyping(relay, board);
const view = new View({
  create: (column, title) => change("POST", "", { column, title }, saved),
  rename: (id, title) => change("PATCH", `/${id}`, { title }, saved),
  remove: (id) => change("DELETE", `/${id}`, undefined, ({ revision }) => removed(id, revision)),
  types: (id) => ownTyping.types(id),
  stopsTyping: (id) => ownTyping.stops(id),
});
makeDraggable(view, (column) => state.cards(column), move);

view.showUser(user);
relay.on("state", (it) => view.showConnection(it));
await follow();
showPeople();

/** Loads the board, and follows it from the position that came with it. */
async function follow() {
  const loaded = await load();
  const subscription = relay.subscribe([topic], {
    since: loaded.position ?? undefined,
    onEvent: apply,
    // The relay no longer has all events, for example because it was killed.
    onGap: load,
  });
  if (loaded.position === null) {
    // Nothing was ever posted, so there is no position: what changed until now came as no event.
    await subscription.ready;
    await load();
  }
}

/** Loads the board, until the backend answers. */
async function load() {
  for (;;) {
    try {
      const loaded = await call("GET", `/boards/${board}`);
      state.load(loaded);
      show();
      return loaded;
    } catch (error) {
      view.notify(`The board cannot be loaded: ${error.message}. Trying again.`);
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
  }
}

function apply({ name, payload }) {
  if (name === "cardSaved") saved(payload.card);
  else if (name === "cardDeleted") removed(payload.cardId, payload.revision);
  else if (name === "typing") typing.receive(payload);
}

function saved(card) {
  state.save(card);
  show();
}

function removed(id, revision) {
  state.remove(id, revision);
  show();
}

/** Shows who is on the board, and that this user is. */
function showPeople() {
  const room = relay.presence(topic, {
    onChange: () => view.showPeople([...room.users("presence").keys()]),
  });
  room.set("presence", { boardId: board, status: "STATUS_HERE" });
}

/** Moves a card at once, and back if the backend does not take it. */
async function move(id, column, before) {
  const settle = state.move(id, column, before);
  show();
  await change("PATCH", `/${id}`, { column, before }, (card) => state.save(card));
  settle();
  show();
}

/** Sends a change to the backend, after those before it, and passes on the answer. */
function change(method, path, body, done) {
  lastChange = lastChange.then(async () => {
    try {
      done(await call(method, `/boards/${board}/cards${path}`, body));
    } catch (error) {
      view.notify(`Not saved: ${error.message}.`);
    }
  });
  return lastChange;
}

function show() {
  view.showCards((column) => state.cards(column));
}
