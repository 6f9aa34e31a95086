/** Keeps what a component watches over its renders. */

import { useState } from "react";

/** Belongs to a client and to topics. */
interface Watch<Relay> {
  readonly relay: Relay;
  readonly key: string | undefined;
}

/**
 * Returns the same object as in the last render unless the client or the topics are others. Unlike with
 * `useMemo`, React never forgets it.
 */
export function useWatch<Relay, It extends Watch<Relay>>(
  make: (relay: Relay, key: string | undefined) => It,
  relay: Relay,
  key: string | undefined,
): It {
  const [last, setLast] = useState(() => make(relay, key));
  if (last.relay === relay && last.key === key) return last;
  const next = make(relay, key);
  setLast(next);
  return next;
}
