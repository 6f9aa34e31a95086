/** Ids of the messages that a client sends to other clients. */

/** Returns an id that no other client has. */
export function newMessageId(): string {
  // `randomUUID` is missing in pages that were not loaded over TLS.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
