// Who is on the board, and who is typing on which card.

// Whoever is typing says so at most this often, and is believed a little longer.
const SAY_EVERY_MS = 2_000;
const BELIEVE_MS = 4_000;

/** Tells the others that this user is typing. */
export class OwnTyping {
  #relay;
  #board;
  #saidAt = Number.NEGATIVE_INFINITY;

  constructor(relay, board) {
    this.#relay = relay;
    this.#board = board;
  }

  /** Call it with every key. */
  types(cardId) {
    if (performance.now() - this.#saidAt < SAY_EVERY_MS) return;
    this.#saidAt = performance.now();
    this.#send({ cardId });
  }

  stops(cardId) {
    this.#saidAt = Number.NEGATIVE_INFINITY;
    this.#send({ cardId, stopped: true });
  }

  #send(payload) {
    // Without a connection nobody is told, and nobody needs to know later.
    this.#relay.publish("typing", { boardId: this.#board, ...payload }).catch(() => {});
  }
}

/** Who is typing, by card. */
export class TypingUsers {
  /** The timer of each user, by card. */
  #timers = new Map();
  #changed;

  /** @param changed Called with the id of a card whose users have changed. */
  constructor(changed) {
    this.#changed = changed;
  }

  /** Takes a message of another client. */
  receive({ cardId, userId, stopped }) {
    const timers = this.#timers.get(cardId) ?? new Map();
    this.#timers.set(cardId, timers);
    clearTimeout(timers.get(userId));
    if (stopped) timers.delete(userId);
    else {
      const end = () => this.receive({ cardId, userId, stopped: true });
      timers.set(userId, setTimeout(end, BELIEVE_MS));
    }
    if (timers.size === 0) this.#timers.delete(cardId);
    this.#changed(cardId);
  }

  /** Returns the users who are typing on a card. */
  on(cardId) {
    return [...(this.#timers.get(cardId)?.keys() ?? [])].sort();
  }
}

const NAMES = ["ann", "bob", "cid", "dora", "eve", "finn", "gwen", "hugo"];

/**
 * Returns the user of this tab: `?user=` of the address, or a name that the tab keeps. A real
 * page would ask its users to log in.
 */
export function userOfTab() {
  const asked = new URLSearchParams(location.search).get("user");
  if (asked !== null) return asked;
  const kept = sessionStorage.getItem("user");
  const user = kept ?? NAMES[Math.floor(Math.random() * NAMES.length)];
  sessionStorage.setItem("user", user);
  return user;
}
