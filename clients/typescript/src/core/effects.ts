/** What a session tells its caller: what has happened to its subscriptions, and what to send. */

import type { SubscriptionRequest } from "../codec.js";
import type { RelayError } from "../errors.js";
import type { SidewireEvent } from "../event.js";
import type { Position } from "../position.js";
import type { Follower } from "./follower.js";

/** What the caller has to do, in this order. */
export type Effect =
  | { readonly kind: "event"; readonly to: Follower; readonly event: SidewireEvent }
  | { readonly kind: "gap"; readonly to: Follower; readonly since: Position }
  | { readonly kind: "live"; readonly to: Follower }
  | { readonly kind: "refused"; readonly to: Follower; readonly error: RelayError }
  /** The relay has ended the subscription, because of these topics. */
  | { readonly kind: "revoked"; readonly to: Follower; readonly topics: readonly string[] }
  /** The relay refuses a message that is no request of a subscription, or says something else. */
  | { readonly kind: "error"; readonly error: RelayError; readonly messageId: string }
  /** A Subscribe was confirmed. */
  | { readonly kind: "confirmed" };

/**
 * The next request, or the wish for a new connection: one on which a subscription can resume, or one
 * on which the relay answers.
 */
export type Step =
  | { readonly kind: "send"; readonly message: SubscriptionRequest }
  | { readonly kind: "replace connection" }
  | { readonly kind: "give up" };
