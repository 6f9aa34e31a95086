/** A subscription of a client that components share. It lasts while one of them uses it. */

import type { RelayError, Sidewire, SubscriptionState } from "@sidewire/client";

/** What a component is told of a subscription. */
export interface SubscriptionStatus {
  /**
   * The state of the subscription on the present connection. It is `idle` without a topic, and `ended`
   * once the application has closed the client.
   */
  readonly status: SubscriptionState | "idle";
  /**
   * True from when the subscription is live for the first time, also during later reconnects. State that
   * is loaded after that has no gap to the events.
   */
  readonly ready: boolean;
  /** Why the relay refuses the subscription, while it is `refused`. */
  readonly error: RelayError | undefined;
  /** The topics to which the user has lost the right, once the subscription is `revoked`. */
  readonly revokedTopics: readonly string[];
}

export const IDLE: SubscriptionStatus = {
  status: "idle",
  ready: false,
  error: undefined,
  revokedTopics: [],
};
export const PENDING: SubscriptionStatus = { ...IDLE, status: "pending" };

/** A client, whatever its events. */
export type AnyRelay = Pick<Sidewire, "logger" | "on" | "state">;

/** A component that uses the subscription. */
export interface Member {
  /** The status, or what else the component is shown, has changed. */
  changed(): void;
}

/** What the client calls back with. */
interface Callbacks {
  readonly onLive: () => void;
  readonly onRefused: (error: RelayError) => void;
  readonly onRevoked: (topics: readonly string[]) => void;
}

/** How a subscription is made and ended. */
export interface Kind<Handle> {
  open(callbacks: Callbacks): Handle;
  end(handle: Handle): void;
}

/** A subscription, or the presence on a topic, with the components that use it. */
export class Shared<
  Handle extends { readonly state: SubscriptionState },
  Component extends Member,
> {
  readonly #relay: AnyRelay;
  readonly #kind: Kind<Handle>;
  readonly #members = new Set<Component>();
  readonly #stopWatching: () => void;
  readonly #handle: Handle | undefined;
  #status = PENDING;
  #hasEnded = false;

  constructor(relay: AnyRelay, kind: Kind<Handle>) {
    this.#relay = relay;
    this.#kind = kind;
    this.#handle = isClosed(relay) ? undefined : kind.open(this.#callbacks());
    this.#stopWatching = relay.on("state", () => this.#update({}));
    this.#update({});
    this.#endUnlessUsed();
  }

  get status(): SubscriptionStatus {
    return this.#status;
  }

  /** The client's handle. There is none if the client was closed before. */
  get handle(): Handle | undefined {
    return this.#handle;
  }

  /** True if nothing comes any more, so that whoever wants to subscribe needs another one. */
  get isOver(): boolean {
    const { status } = this.#status;
    return this.#hasEnded || status === "ended" || status === "revoked";
  }

  get members(): ReadonlySet<Component> {
    return this.#members;
  }

  join(member: Component): void {
    this.#members.add(member);
  }

  leave(member: Component): void {
    this.#members.delete(member);
    this.#endUnlessUsed();
  }

  /** Calls all members. What one of them throws goes to the client's logger, and stops no other. */
  tell(call: (member: Component) => unknown): void {
    for (const member of [...this.#members]) {
      // Another one's callback may have removed it.
      if (this.#members.has(member)) this.#guard(() => call(member));
    }
  }

  /**
   * In StrictMode, and where one component takes the place of another, the last member leaves and the
   * next one joins within one task.
   */
  #endUnlessUsed(): void {
    queueMicrotask(() => {
      if (this.#members.size > 0 || this.#hasEnded) return;
      this.#hasEnded = true;
      this.#stopWatching();
      if (this.#handle !== undefined) this.#kind.end(this.#handle);
    });
  }

  #callbacks(): Callbacks {
    return {
      onLive: () => this.#update({ ready: true }),
      onRefused: (error) => {
        if (this.#handle?.state !== "refused") {
          // It is not about the subscription, but about what the client shows of itself.
          this.#relay.logger.warn("sidewire: a presence message is refused", error);
          return;
        }
        this.#relay.logger.warn("sidewire: a subscription is refused", error);
        this.#update({ error });
      },
      onRevoked: (revokedTopics) => {
        this.#relay.logger.warn(`sidewire: the relay has revoked ${revokedTopics.join(", ")}`);
        this.#update({ revokedTopics });
      },
    };
  }

  #update(change: Partial<SubscriptionStatus>): void {
    const before = this.#status;
    const state = isClosed(this.#relay) ? undefined : this.#handle?.state;
    const changed = { ...before, ...change, status: state ?? "ended" };
    const { status } = changed;
    const next: SubscriptionStatus = {
      ...changed,
      ready: changed.ready && status !== "ended" && status !== "revoked",
      error: status === "refused" ? changed.error : undefined,
    };
    const names = Object.keys(next) as (keyof SubscriptionStatus)[];
    // React renders a component for each object that is new.
    if (names.every((name) => next[name] === before[name])) return;
    this.#status = next;
    this.tell((it) => it.changed());
  }

  #guard(call: () => unknown): void {
    const failed = (error: unknown) =>
      this.#relay.logger.error("sidewire: a callback failed", error);
    try {
      const result = call();
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}

function isClosed({ state }: AnyRelay): boolean {
  return state.name === "closed" && state.reason.code === "CLOSED";
}
