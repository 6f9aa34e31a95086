// The order of cards in a column. The backend and the page both use it, so that a card that
// is dropped is shown at once where the backend will put it.

/** Compares two cards of a column, for `Array.sort`. */
export function compareCards(a, b) {
  return a.rank - b.rank || (a.id < b.id ? -1 : 1);
}

/**
 * Returns the rank of a card that is put before another one, or at the end if the column has no
 * card with that id. Returns `undefined` if there is no number left between the two neighbours.
 *
 * @param cards The cards of the column, in their order.
 * @param before The id of the card that is to follow; null means the end.
 */
export function rankBefore(cards, before) {
  const at = cards.findIndex((card) => card.id === before);
  if (at === -1) return (cards.at(-1)?.rank ?? 0) + 1;
  const high = cards[at].rank;
  const low = cards[at - 1]?.rank ?? high - 2;
  const rank = low + (high - low) / 2;
  return low < rank && rank < high ? rank : undefined;
}
