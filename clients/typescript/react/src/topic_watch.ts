/** What one component watches: topics, with the callbacks of its last render. */

import type { EventOf, Position, Sidewire, Subscription } from "@sidewire/client";
import { Registry } from "./registry.js";
import { IDLE, type Member, PENDING, Shared, type SubscriptionStatus } from "./shared.js";

/** What a component does with the events of topics. */
export interface TopicOptions<Events> {
  /**
   * The position after which the events begin: the one that was stored with the state that the component
   * shows. It is read when the component is mounted and when its topics change. Without it they begin
   * when the result is `ready`.
   */
  readonly since?: Position | undefined;
  /** Called with every event, in order and never twice. What it throws goes to the client's logger. */
  readonly onEvent?: ((event: EventOf<Events>) => unknown) | undefined;
  /**
   * Called when the relay no longer has all events after `since`: load the current state from the
   * backend. No event after this call is missing.
   */
  readonly onGap: (since: Position, topics: readonly string[]) => unknown;
}

interface TopicMember<Events> extends Member {
  event(event: EventOf<Events>): unknown;
  gap(since: Position, topics: readonly string[]): unknown;
}

type SharedTopic<Events> = Shared<Subscription<Events>, TopicMember<Events>>;

// biome-ignore lint/suspicious/noExplicitAny: each client has its own types of events.
const sharedTopics = new Registry<SharedTopic<any>>();

/** Returns one key for the same topics in any order; none without topics. */
export function topicsKey(topics: string | readonly string[] | undefined): string | undefined {
  return topics === undefined ? undefined : JSON.stringify([...new Set([topics].flat())].sort());
}

/** Joins the subscription of its topics while the component is mounted. */
export class TopicWatch<Events> implements TopicMember<Events> {
  readonly relay: Sidewire<Events>;
  readonly key: string | undefined;
  #options: TopicOptions<Events> | undefined;
  #shared: SharedTopic<Events> | undefined;
  /** Renders the component, while it is mounted. */
  #render: (() => void) | undefined;

  constructor(relay: Sidewire<Events>, key: string | undefined) {
    this.relay = relay;
    this.key = key;
  }

  /** Takes the options of the render that is now on the screen. */
  readonly update = (options: TopicOptions<Events> | undefined): void => {
    this.#options = options;
  };

  /** For `useSyncExternalStore`. */
  readonly subscribe = (render: () => void): (() => void) => {
    if (this.key === undefined) return () => {};
    const shared = this.#find(this.key);
    this.#shared = shared;
    this.#render = render;
    shared.join(this);
    return () => {
      this.#render = undefined;
      shared.leave(this);
    };
  };

  /**
   * For `useSyncExternalStore`. Before it has joined, it may miss events, so it is not `ready`, even if
   * others have the subscription already.
   */
  readonly getStatus = (): SubscriptionStatus =>
    this.#render === undefined ? this.initialStatus() : (this.#shared?.status ?? PENDING);

  /** The status before it is mounted, and on a server. */
  readonly initialStatus = (): SubscriptionStatus => (this.key === undefined ? IDLE : PENDING);

  changed(): void {
    this.#render?.();
  }

  event(event: EventOf<Events>): unknown {
    return this.#options?.onEvent?.(event);
  }

  gap(since: Position, topics: readonly string[]): unknown {
    return this.#options?.onGap(since, topics);
  }

  /** A component that begins at a position of its own has a subscription of its own. */
  #find(key: string): SharedTopic<Events> {
    if (this.#shared?.isOver === false) return this.#shared;
    const since = this.#options?.since;
    if (since === undefined) {
      return sharedTopics.get(this.relay, key, () => open(this.relay, key));
    }
    // If React has hidden the component and shows it again, it goes on where it was.
    return open(this.relay, key, this.#shared?.handle?.position ?? since);
  }
}

function open<Events>(relay: Sidewire<Events>, key: string, since?: Position): SharedTopic<Events> {
  const shared: SharedTopic<Events> = new Shared(relay, {
    open: (callbacks) =>
      relay.subscribe(JSON.parse(key), {
        ...callbacks,
        ...(since && { since }),
        onEvent: (event) => shared.tell((it) => it.event(event)),
        onGap: (after, topics) => shared.tell((it) => it.gap(after, topics)),
      }),
    end: (subscription) => subscription.unsubscribe(),
  });
  return shared;
}
