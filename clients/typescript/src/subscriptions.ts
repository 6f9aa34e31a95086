/** The handles of a client's subscriptions, by what the session knows of them. */

import type { Effect } from "./core/effects.js";
import type { Follower } from "./core/follower.js";
import type { Subscription } from "./subscription.js";

/** All subscriptions that have not ended. */
export class Subscriptions<Events> {
  readonly #byFollower = new Map<Follower, Subscription<Events>>();

  add(follower: Follower, subscription: Subscription<Events>): void {
    this.#byFollower.set(follower, subscription);
  }

  remove(follower: Follower): void {
    this.#byFollower.delete(follower);
  }

  /** Ends all of them. */
  unsubscribeAll(): void {
    for (const subscription of [...this.#byFollower.values()]) subscription.unsubscribe();
  }

  /** Tells a subscription what has happened to it. */
  apply(effect: Extract<Effect, { to: Follower }>): void {
    const subscription = this.#byFollower.get(effect.to);
    switch (effect.kind) {
      case "event":
        subscription?.event(effect.event);
        break;
      case "gap":
        subscription?.gap(effect.since);
        break;
      case "live":
        subscription?.live();
        break;
      case "refused":
        subscription?.refused(effect.error);
        break;
      case "revoked":
        subscription?.revoked(effect.topics);
        this.#byFollower.delete(effect.to);
        break;
    }
  }
}
