// What the page knows of a board. Answers, events and whole loads of the board come in any
// order, also late and twice; the revisions tell which of two is newer, so that nothing goes
// backwards. Moves that are not answered yet are shown on top of that.

import { compareCards, rankBefore } from "./rank.js";

/** The cards of a board. */
export class BoardState {
  /** The newest state of each card. */
  #cards = new Map();
  /** The revision at which each card was deleted. */
  #deleted = new Map();
  /** By card, where it was moved to, until the backend has answered. */
  #moves = new Map();

  /** Takes all cards of the board as they were at a revision. */
  load({ cards, revision }) {
    for (const card of cards) this.save(card);
    const ids = new Set(cards.map((card) => card.id));
    for (const [id, card] of this.#cards) {
      // One that is newer was created after the board was read.
      if (!ids.has(id) && card.revision <= revision) this.remove(id, revision);
    }
  }

  /** Takes a card that was created or changed, unless something newer is known. */
  save(card) {
    const known = Math.max(
      this.#cards.get(card.id)?.revision ?? 0,
      this.#deleted.get(card.id) ?? 0,
    );
    // JSON of Protocol Buffers leaves out a number that is 0.
    if (card.revision > known) this.#cards.set(card.id, { ...card, rank: card.rank ?? 0 });
  }

  /** Takes the deletion of a card. */
  remove(id, revision) {
    this.#cards.delete(id);
    this.#deleted.set(id, revision);
  }

  /**
   * Shows a card at another place before the backend has put it there. The function that is
   * returned ends that: the card is then shown where the backend has it, as far as is known.
   */
  move(id, column, before) {
    // Without room between the neighbours the backend renumbers the column; until then the card
    // shares a rank.
    const rank = rankBefore(this.cards(column), before) ?? this.card(before).rank;
    const move = { column, rank };
    this.#moves.set(id, move);
    return () => {
      // A later move of the card goes on.
      if (this.#moves.get(id) === move) this.#moves.delete(id);
    };
  }

  /** Returns a card as it is shown. */
  card(id) {
    const card = this.#cards.get(id);
    return card && { ...card, ...this.#moves.get(id) };
  }

  /** Returns the cards of a column, in their order. */
  cards(column) {
    const all = [...this.#cards.keys()].map((id) => this.card(id));
    return all.filter((card) => card.column === column).sort(compareCards);
  }
}
