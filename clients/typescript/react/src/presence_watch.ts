/** What one component watches, and shows, of the presence on a topic. */

import type { Presence, Sendable, Sidewire } from "@sidewire/client";
import { Registry } from "./registry.js";
import { IDLE, type Member, PENDING, Shared, type SubscriptionStatus } from "./shared.js";

/** Who is present on a topic, and what the component shows there. */
export interface PresenceState<Events> extends Pick<SubscriptionStatus, "status" | "error"> {
  /**
   * Returns the users who show a payload, and what they show. The map is never changed; there is a new
   * one when a user comes, changes or goes. Without a connection it is what was seen last.
   *
   * Throws a `TypeError` if the payload is no presence.
   */
  users<Name extends keyof Events & string>(name: Name): ReadonlyMap<string, Events[Name]>;
  /**
   * Shows a payload to the others on the topics that it names, as long as the component is mounted: call
   * it in an effect or an event handler. A client has one message for each payload; the last one counts.
   *
   * Throws a `TypeError` if the payload is no presence, or names no topic.
   */
  set<Name extends keyof Events & string>(name: Name, payload: Sendable<Events[Name]>): void;
  /** Withdraws what the component has shown. */
  withdraw(): void;
}

type UsersByPayload = ReadonlyMap<string, ReadonlyMap<string, unknown>>;

interface PresenceMember extends Member {
  /** What the component shows, by the name of the payload. */
  readonly shown: ReadonlyMap<string, unknown>;
}

const NOBODY = new Map<string, never>();
const NO_USERS: UsersByPayload = new Map();

const sharedPresences = new Registry<SharedPresence>();

/** The presence on one topic, for all components of a client. */
class SharedPresence extends Shared<Presence<Record<string, unknown>>, PresenceMember> {
  #users = NO_USERS;

  constructor(relay: Sidewire<Record<string, unknown>>, topic: string) {
    super(relay, {
      open: (callbacks) =>
        relay.presence(topic, { ...callbacks, onChange: ({ name }) => this.#changed(name) }),
      end: (presence) => presence.close(),
    });
  }

  get users(): UsersByPayload {
    return this.#users;
  }

  set(name: string, payload: unknown): void {
    if (!this.isOver) this.handle?.set(name, payload as object);
  }

  override leave(member: PresenceMember): void {
    super.leave(member);
    if (member.shown.size > 0) this.showAgain();
  }

  /** Withdraws what is no longer shown by any component. */
  showAgain(): void {
    this.handle?.withdraw();
    for (const { shown } of this.members) {
      for (const [name, payload] of shown) this.set(name, payload);
    }
  }

  #changed(name: string): void {
    this.#users = new Map(this.#users).set(name, new Map(this.handle?.users(name)));
    this.tell((it) => it.changed());
  }
}

/** Joins the presence on a topic while the component is mounted. */
export class PresenceWatch<Events> implements PresenceMember {
  readonly relay: Sidewire<Events>;
  readonly key: string | undefined;
  readonly shown = new Map<string, unknown>();
  #shared: SharedPresence | undefined;
  /** Renders the component, while it is mounted. */
  #render: (() => void) | undefined;
  #status: SubscriptionStatus;
  #users = NO_USERS;
  #state: PresenceState<Events>;

  constructor(relay: Sidewire<Events>, topic: string | undefined) {
    this.relay = relay;
    this.key = topic;
    this.#status = topic === undefined ? IDLE : PENDING;
    this.#state = this.#newState();
  }

  /** For `useSyncExternalStore`. */
  readonly subscribe = (render: () => void): (() => void) => {
    const topic = this.key;
    if (topic === undefined) return () => {};
    const relay = this.relay as unknown as Sidewire<Record<string, unknown>>;
    const shared = sharedPresences.get(relay, topic, () => new SharedPresence(relay, topic));
    for (const [name, payload] of this.shown) shared.set(name, payload);
    shared.join(this);
    this.#shared = shared;
    this.#render = render;
    this.changed();
    return () => {
      this.#shared = undefined;
      this.#render = undefined;
      shared.leave(this);
    };
  };

  /** For `useSyncExternalStore`. */
  readonly getState = (): PresenceState<Events> => this.#state;

  changed(): void {
    if (this.#shared === undefined) return;
    const { status, users } = this.#shared;
    if (status === this.#status && users === this.#users) return;
    this.#status = status;
    this.#users = users;
    this.#state = this.#newState();
    this.#render?.();
  }

  readonly #set = (name: string, payload: unknown): void => {
    this.#shared?.set(name, payload);
    this.shown.set(name, payload);
  };

  readonly #withdraw = (): void => {
    this.shown.clear();
    this.#shared?.showAgain();
  };

  #newState(): PresenceState<Events> {
    const { status, error } = this.#status;
    const shown = this.#users;
    return {
      status,
      error,
      users: <Name extends keyof Events & string>(name: Name) => {
        // Throws if the payload is no presence.
        this.#shared?.handle?.users(name);
        return (shown.get(name) ?? NOBODY) as ReadonlyMap<string, Events[Name]>;
      },
      set: this.#set,
      withdraw: this.#withdraw,
    };
  }
}
