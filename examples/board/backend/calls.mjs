// The calls of the page, and the checks of what it sends.

import { RequestError } from "./http.mjs";
import { COLUMNS } from "./store.mjs";

const TITLE_MAX = 200;

/**
 * Returns the calls: method, path, and a handler that gets the body and the parts of the path in
 * parentheses, and returns what is answered as JSON.
 *
 * @param store The {@link Store}.
 * @param settings What the page needs to know, as it is answered.
 * @param tokenFor Returns a token of the relay for a user.
 */
export function makeCalls({ store, settings, tokenFor }) {
  const board = "/boards/([^/]+)";
  const card = `${board}/cards/([^/]+)`;
  return [
    ["GET", "/settings", () => settings],
    // For a demo only: a real backend takes the user from its session, never from the request.
    // examples/authorization shows it.
    ["POST", "/token", ({ user }) => ({ token: tokenFor(checkUser(user)) })],
    ["GET", board, (_, board) => store.board(board)],
    ["POST", `${board}/cards`, (body, board) => store.createCard(board, newCard(body))],
    ["PATCH", card, (body, board, card) => store.changeCard(board, card, cardChange(body))],
    ["DELETE", card, (_, board, card) => store.deleteCard(board, card)],
  ];
}

function newCard({ title, column }) {
  return { title: checkTitle(title), column: checkColumn(column) };
}

function cardChange({ title, column, before }) {
  check(title !== undefined || column !== undefined, "neither `title` nor `column` is given");
  const isPlace = before === null || typeof before === "string";
  check(column === undefined || isPlace, "`before` is neither the id of a card nor null");
  return {
    title: title === undefined ? undefined : checkTitle(title),
    column: column === undefined ? undefined : checkColumn(column),
    before,
  };
}

function checkUser(user) {
  const isName = typeof user === "string" && /^[a-z]{1,16}$/.test(user);
  check(isName, "`user` does not have 1 to 16 lower-case letters");
  return user;
}

function checkTitle(title) {
  const text = typeof title === "string" ? title.trim() : "";
  check(
    text.length >= 1 && text.length <= TITLE_MAX,
    `\`title\` does not have 1 to ${TITLE_MAX} characters`,
  );
  return text;
}

function checkColumn(column) {
  check(COLUMNS.includes(column), `\`column\` is none of ${COLUMNS.join(", ")}`);
  return column;
}

function check(condition, message) {
  if (!condition) throw new RequestError(400, message);
}
