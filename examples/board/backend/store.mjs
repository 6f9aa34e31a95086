// The database of the board: cards, and the outbox with the events about them. Every change
// of a card and its event are written in one transaction, so there is never one without the
// other.

import { randomUUID } from "node:crypto";
import Database from "better-sqlite3";
import { compareCards, rankBefore } from "../page/rank.js";

export const COLUMNS = ["todo", "doing", "done"];

const TABLES = `
  CREATE TABLE IF NOT EXISTS boards (
    id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL -- the number of the last change
  ) STRICT;
  CREATE TABLE IF NOT EXISTS cards (
    id TEXT PRIMARY KEY,
    boardId TEXT NOT NULL REFERENCES boards (id),
    "column" TEXT NOT NULL,
    rank REAL NOT NULL,
    title TEXT NOT NULL,
    revision INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    messageId TEXT NOT NULL UNIQUE,
    envelope TEXT NOT NULL,
    epoch TEXT,   -- the position at which the relay has stored the event;
    "offset" TEXT, -- NULL until then
    refused TEXT  -- why the relay will never take the event
  ) STRICT;
`;

/** There is no such board or card. */
export class NotFoundError extends Error {
  /** The status of the answer. */
  status = 404;
}

/** Boards and their cards. */
export class Store {
  #database;
  #changed;

  /**
   * @param path The database file; it is created if it does not exist.
   * @param changed Called after each transaction that has put events into the outbox.
   */
  constructor(path, changed = () => {}) {
    this.#database = new Database(path);
    this.#database.pragma("journal_mode = WAL");
    // A change that was answered is not lost if the machine loses its power.
    this.#database.pragma("synchronous = FULL");
    this.#database.pragma("foreign_keys = ON");
    this.#database.exec(TABLES);
    this.#changed = changed;
  }

  close() {
    this.#database.close();
  }

  /** Creates a board with some cards, unless it exists. */
  createBoard(board, cards) {
    this.#write(() => {
      const insert = "INSERT INTO boards (id, revision) VALUES (?, 0) ON CONFLICT DO NOTHING";
      if (this.#run(insert, board).changes === 0) return;
      for (const card of cards) this.#insert(board, card);
    });
  }

  /** Returns a board, its cards, and the position from which to follow it. */
  board(id) {
    // In one transaction, so that the position and the cards are of one moment.
    return this.#database.transaction(() => {
      const board = this.#get("SELECT id, revision FROM boards WHERE id = ?", id);
      if (board === undefined) throw new NotFoundError(`there is no board ${id}`);
      const cards = this.#all("SELECT * FROM cards WHERE boardId = ?", id);
      return { ...board, cards, position: this.#position() };
    })();
  }

  /** Creates a card at the end of a column, and returns it. */
  createCard(board, { title, column }) {
    return this.#write(() => this.#insert(board, { title, column }));
  }

  /**
   * Changes a card, and returns it.
   *
   * @param change What is to change: `title`, or `column` together with `before`, the id of the
   * card that is to follow it; null means the end of the column.
   */
  changeCard(board, id, { title, column, before }) {
    return this.#write(() => {
      const card = this.#card(board, id);
      if (title !== undefined) card.title = title;
      if (column !== undefined) {
        card.column = column;
        card.rank = this.#rankBefore(board, column, before);
      }
      return this.#save(card);
    });
  }

  /** Deletes a card, and returns the revision of the board. */
  deleteCard(board, id) {
    return this.#write(() => {
      this.#card(board, id);
      this.#run("DELETE FROM cards WHERE id = ?", id);
      const revision = this.#nextRevision(board);
      this.#addEvent({ cardDeleted: { cardId: id, boardId: board, revision } });
      return { revision };
    });
  }

  /** Returns the first event that the relay has neither stored nor refused for good. */
  nextEvent() {
    return this.#get(
      `SELECT number, messageId, envelope FROM outbox
       WHERE epoch IS NULL AND refused IS NULL ORDER BY number LIMIT 1`,
    );
  }

  /** Marks an event as sent. Earlier ones are no longer needed. */
  markSent(number, { epoch, offset }) {
    this.#database.transaction(() => {
      this.#run(
        'UPDATE outbox SET epoch = ?, "offset" = ? WHERE number = ?',
        epoch,
        offset,
        number,
      );
      this.#run("DELETE FROM outbox WHERE number < ? AND epoch IS NOT NULL", number);
    })();
  }

  /** Sets an event aside that the relay will never take. */
  markRefused(number, reason) {
    this.#run("UPDATE outbox SET refused = ? WHERE number = ?", reason, number);
  }

  /**
   * Returns the position of the last event that was sent. Whatever comes after it may be missing
   * in what a page has loaded, and whatever comes before it is not.
   */
  #position() {
    const last = this.#get(
      'SELECT epoch, "offset" FROM outbox WHERE epoch IS NOT NULL ORDER BY number DESC LIMIT 1',
    );
    return last ?? null;
  }

  #write(change) {
    const result = this.#database.transaction(change).immediate();
    this.#changed();
    return result;
  }

  #card(board, id) {
    const card = this.#get("SELECT * FROM cards WHERE boardId = ? AND id = ?", board, id);
    if (card === undefined) throw new NotFoundError(`there is no card ${id} on board ${board}`);
    return card;
  }

  #cards(board, column) {
    const cards = this.#all(
      'SELECT * FROM cards WHERE boardId = ? AND "column" = ?',
      board,
      column,
    );
    return cards.sort(compareCards);
  }

  #insert(board, { title, column }) {
    const rank = this.#rankBefore(board, column, null);
    return this.#save({ id: randomUUID(), boardId: board, column, rank, title });
  }

  /** Returns a rank before another card. Renumbers the column if there is no room. */
  #rankBefore(board, column, before) {
    const rank = rankBefore(this.#cards(board, column), before);
    if (rank !== undefined) return rank;
    for (const [index, card] of this.#cards(board, column).entries()) {
      this.#save({ ...card, rank: index + 1 });
    }
    return rankBefore(this.#cards(board, column), before);
  }

  /** Writes a card and the event about it. */
  #save(card) {
    const saved = { ...card, revision: this.#nextRevision(card.boardId) };
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO cards (id, boardId, "column", rank, title, revision)
         VALUES (@id, @boardId, @column, @rank, @title, @revision)`,
      )
      .run(saved);
    this.#addEvent({ cardSaved: { card: saved } });
    return saved;
  }

  #nextRevision(board) {
    const update = "UPDATE boards SET revision = revision + 1 WHERE id = ? RETURNING revision";
    const row = this.#get(update, board);
    if (row === undefined) throw new NotFoundError(`there is no board ${board}`);
    return row.revision;
  }

  /** Puts an event into the outbox. Its id is stored with it, so it is the same for each try. */
  #addEvent(envelope) {
    const insert = "INSERT INTO outbox (messageId, envelope) VALUES (?, ?)";
    this.#run(insert, randomUUID(), JSON.stringify(envelope));
  }

  #get(sql, ...values) {
    return this.#database.prepare(sql).get(...values);
  }

  #all(sql, ...values) {
    return this.#database.prepare(sql).all(...values);
  }

  #run(sql, ...values) {
    return this.#database.prepare(sql).run(...values);
  }
}
