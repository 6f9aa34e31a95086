/** The requests of a session. */

import type { Follower } from "./follower.js";

/** A Subscribe, for one or more subscriptions. */
export interface SubscribeRequest {
  readonly messageId: string;
  readonly kind: "subscribe";
  readonly followers: Follower[];
  /** As they are in the message. */
  readonly topics: string[];
}

/** An Unsubscribe. */
export interface UnsubscribeRequest {
  readonly messageId: string;
  readonly kind: "unsubscribe";
  readonly topics: string[];
}

/** A request that waits for its answer. */
export type PendingRequest = SubscribeRequest | UnsubscribeRequest;

/**
 * Takes those that the one Subscribe of a connection is for: all that the relay has taken, and the others
 * of the first one's group.
 */
export function takeAtOnce(followers: readonly Follower[]): Follower[] {
  const group = followers.find((it) => !it.isTaken)?.group;
  return followers.filter((it) => it.isTaken || it.group === group);
}

/** Returns the topic that the `field_name` of a refusal names, such as `subscribe.topics[2]`. */
export function refusedTopic(
  request: SubscribeRequest,
  fieldName: string | undefined,
): string | undefined {
  const index = /^subscribe\.topics\[([0-9]+)\]$/.exec(fieldName ?? "")?.[1];
  return index === undefined ? undefined : request.topics[Number(index)];
}
