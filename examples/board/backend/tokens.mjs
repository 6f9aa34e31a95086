// Tokens for the relay: short-lived JSON Web Tokens, signed with the secret that the backend
// shares with it.

import { createHmac } from "node:crypto";

const LIFETIME_S = 300;

/**
 * Returns a signed token.
 *
 * @param topics What the user may follow.
 */
export function mintToken(secret, { tenant, user, topics }) {
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: "HS256", typ: "JWT" };
  const claims = { tenant_id: tenant, user_id: user, topics, iat: now, exp: now + LIFETIME_S };
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part(header)}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
