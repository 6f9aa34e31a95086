/**
 * The subscriptions of a client over all its connections: which request is to be sent next, and
 * what a message of the relay means for each subscription. Does no I/O: it is given the time, and
 * returns what is to be done.
 *
 * Every subscription has a position of its own, by the rules of docs/protocol.md, "What a client
 * keeps". Requests are sent one at a time, those with the lowest position first, because the first
 * Subscribe that resumes also resumes the implicit topics, and those that the token subscribes.
 */

import { RETRY_AFTER_MAX_MS, RETRY_AFTER_MIN_MS } from "../backoff.js";
import type { Confirmed, Incoming, Refused, Unsubscribed } from "../codec.js";
import { RelayError } from "../errors.js";
import type { SidewireEvent } from "../event.js";
import { isAfter, type Position } from "../position.js";
import { ConnectionTopics } from "./connection_topics.js";
import type { Effect, Step } from "./effects.js";
import { Follower, type StoredEvent } from "./follower.js";
import { inResumeOrder, takeJoinable } from "./grouping.js";
import { RECENT_LIMITS, RecentEvents, type RecentLimits } from "./recent.js";
import { type PendingRequest, refusedTopic, takeAtOnce } from "./requests.js";

/** A request without an answer may be this old, not counting the replay that it waits for. */
export const ANSWER_WITHIN_MS = 60_000;

interface Replay {
  readonly followers: readonly Follower[];
  readonly end: Position;
  left: number;
}

/** All subscriptions of a client. */
export class Session {
  readonly #followers = new Set<Follower>();
  readonly #recent = new RecentEvents();
  #isOpen = false;
  /** The request that waits for its answer. */
  #pendingRequest: PendingRequest | undefined;
  #answerDueAt = 0;
  #replay: Replay | undefined;
  readonly #topics = new ConnectionTopics();
  /** The number of groups into which refused Subscribes were divided. */
  #groups = 0;
  #deferredUntil = 0;
  #requests = 0;
  /** The epoch of the relay's log, as far as it is known. */
  #epoch: string | undefined;
  /** True if a Subscribe of this connection has resumed, and with it the implicit topics. */
  #hasResumed = false;
  /** The position from which on the connection has brought all events of the implicit topics. */
  #coveredFrom: Position | undefined;
  /** True if a replay cannot be made complete on this connection. */
  #mustReplace = false;
  /** True if the connection has one Subscribe, for all subscriptions. */
  #subscribesOnce = false;
  /** True if that Subscribe was confirmed. */
  #hasSubscribed = false;
  readonly #limits: RecentLimits;

  constructor(limits = RECENT_LIMITS) {
    this.#limits = limits;
  }

  /** The topics that are subscribed on this connection, those of the token included. */
  get subscribed(): ReadonlySet<string> {
    return this.#topics.subscribed;
  }

  /** True if no subscription waits for anything but events. */
  get isSettled(): boolean {
    for (const { state } of this.#followers) {
      if (state !== "live" && state !== "refused") return false;
    }
    return true;
  }

  /** Adds a subscription, which starts after `since`, or at its confirmation. */
  subscribe(topics: readonly string[], since?: Position): Follower {
    const follower = new Follower(topics, since);
    this.#followers.add(follower);
    return follower;
  }

  /** Ends a subscription. */
  unsubscribe(follower: Follower): void {
    if (!this.#followers.delete(follower)) return;
    const { state } = follower;
    follower.state = "ended";
    if (state === "requested" || state === "replaying" || state === "live") {
      this.#topics.addUnwanted(follower.topics);
    }
  }

  /** A new connection is open. It `subscribesOnce` if it has one Subscribe, for all subscriptions. */
  opened(subscribesOnce = false): void {
    this.closed();
    this.#isOpen = true;
    this.#subscribesOnce = subscribesOnce;
  }

  /** The connection has ended. */
  closed(): void {
    this.#isOpen = false;
    this.#forget();
    for (const follower of this.#followers) follower.reset();
  }

  /** The connection begins anew, with another Subscribe. What it has refused stays refused. */
  reopened(): void {
    this.#forget();
    for (const follower of this.#followers) follower.pause();
  }

  #forget(): void {
    this.#pendingRequest = undefined;
    this.#replay = undefined;
    this.#topics.clear();
    this.#deferredUntil = 0;
    this.#hasResumed = false;
    this.#hasSubscribed = false;
    this.#coveredFrom = undefined;
    this.#mustReplace = false;
    this.#recent.clear();
  }

  /** Returns what to do next; call it until it returns nothing. */
  next(now: number): Step | undefined {
    if (!this.#isOpen) return undefined;
    if (this.#pendingRequest !== undefined) {
      return now < this.#answerDueAt ? undefined : { kind: "give up" };
    }
    if (now < this.#deferredUntil) return undefined;
    if (this.#mustReplace) return { kind: "replace connection" };
    const request = this.#subscribesOnce
      ? this.#nextOnlySubscribe()
      : (this.#nextUnsubscribe() ?? this.#nextSubscribe());
    this.#answerDueAt = now + ANSWER_WITHIN_MS;
    return request;
  }

  /** Returns the time at which `next` may return more than now. */
  get wakeAt(): number | undefined {
    if (this.#pendingRequest !== undefined) return this.#answerDueAt;
    return this.#deferredUntil === 0 ? undefined : this.#deferredUntil;
  }

  /** Takes a message of the relay. */
  receive(message: Incoming, now: number): Effect[] {
    switch (message.kind) {
      case "confirmed":
        return this.#confirmed(message);
      case "unsubscribed":
        return this.#unsubscribed(message);
      case "authenticated":
        return this.#revoked(message.topics);
      case "pong":
        if (message.position !== undefined) this.#raiseAll(message.position);
        return [];
      case "refused":
        return this.#refused(message, now);
      case "event": {
        const { event } = message;
        return isStored(event) ? this.#stored(event, true, now) : this.#notStored(event);
      }
      case "unknown":
        return message.position === undefined
          ? []
          : this.#stored(unknownEvent(message.position), false, now);
    }
  }

  #nextUnsubscribe(): Step | undefined {
    const topics = this.#topics.takeUnwanted(() => this.#wantedTopics());
    if (topics === undefined) return undefined;
    const messageId = this.#nextId();
    this.#pendingRequest = { messageId, kind: "unsubscribe", topics };
    return { kind: "send", message: { kind: "unsubscribe", messageId, topics } };
  }

  #wantedTopics(): Set<string> {
    return new Set([...this.#followers].flatMap((it) => (it.isWanted ? it.topics : [])));
  }

  #waitingInOrder(): Follower[] {
    const waiting = [...this.#followers].filter((it) => it.state === "waiting");
    return inResumeOrder(waiting, this.#epoch);
  }

  #nextSubscribe(): Step | undefined {
    const followers = takeJoinable(this.#waitingInOrder());
    const [first] = followers;
    if (first === undefined) return undefined;
    const resumeFrom = first.position;
    if (resumeFrom !== undefined && !this.#canResumeFrom(resumeFrom)) {
      return { kind: "replace connection" };
    }
    return this.#subscribeStep(followers, resumeFrom);
  }

  /** The lowest position counts for all of them: each passes on what lies after its own. */
  #nextOnlySubscribe(): Step | undefined {
    const waiting = this.#waitingInOrder();
    if (this.#hasSubscribed) {
      const hasChanged = waiting.length > 0 || this.#topics.hasUnwanted(() => this.#wantedTopics());
      return hasChanged ? { kind: "replace connection" } : undefined;
    }
    const followers = takeAtOnce(waiting);
    return this.#subscribeStep(followers, followers[0]?.position);
  }

  #subscribeStep(followers: Follower[], resumeFrom: Position | undefined): Step {
    for (const follower of followers) follower.state = "requested";
    const messageId = this.#nextId();
    const topics = [...new Set(followers.flatMap((it) => it.topics))];
    this.#pendingRequest = { messageId, kind: "subscribe", followers, topics };
    return { kind: "send", message: { kind: "subscribe", messageId, topics, resumeFrom } };
  }

  /** Returns false if this connection has resumed the implicit topics from a later position. */
  #canResumeFrom(position: Position): boolean {
    // Nothing before the first confirmation, and from another epoch nothing can be resumed.
    if (this.#coveredFrom === undefined || position.epoch !== this.#epoch) return true;
    return !this.#hasResumed || !isAfter(this.#coveredFrom, position);
  }

  #confirmed(message: Confirmed): Effect[] {
    if (message.requestMessageId === "") this.#topics.addClaimed(message.topics);
    const request = this.#takePendingRequest(message.requestMessageId);
    const { position } = message;
    if (request?.kind !== "subscribe" || position === undefined) return [];
    this.#topics.addSubscribed(request.topics);
    this.#hasSubscribed = true;
    this.#epoch = position.epoch;
    this.#raiseAll(position);
    const lowest = request.followers[0]?.position;
    this.#cover(lowest, message.recovered, position);
    const effects = request.followers.flatMap((it) =>
      this.#confirmFollower(it, message, position, lowest),
    );
    const replaying = request.followers.filter((it) => it.state === "replaying");
    if (message.replayed > 0) {
      this.#replay = { followers: replaying, end: position, left: message.replayed };
    } else {
      effects.push(...replaying.flatMap((it) => endReplay(it, position)));
    }
    return [{ kind: "confirmed" }, ...effects];
  }

  /** Keeps from where on the implicit topics are complete. */
  #cover(resumeFrom: Position | undefined, recovered: boolean, position: Position): void {
    const isFirstResume = resumeFrom !== undefined && !this.#hasResumed;
    if (isFirstResume) this.#hasResumed = true;
    const covered = this.#coveredFrom;
    if (isFirstResume && recovered && (covered === undefined || isAfter(covered, resumeFrom))) {
      this.#coveredFrom = resumeFrom;
    }
    this.#coveredFrom ??= position;
  }

  /** `lowest` is the position from which the Subscribe resumes. */
  #confirmFollower(
    follower: Follower,
    message: Confirmed,
    position: Position,
    lowest: Position | undefined,
  ): Effect[] {
    if (follower.state !== "requested") return [];
    follower.sendAlone = false;
    follower.isTaken = true;
    const since = follower.position;
    const isInLog = since !== undefined && !isAfter(since, position);
    if (isInLog && !message.recovered && lowest !== undefined && isAfter(since, lowest)) {
      // The log may reach back to this one.
      follower.state = "waiting";
      return [];
    }
    if (isInLog && message.recovered) {
      if (this.#recent.reachesBackTo(since)) follower.startReplay(this.#recent.events);
      else {
        follower.state = "waiting";
        this.#mustReplace = true;
      }
      return [];
    }
    follower.goLive(position);
    const live: Effect = { kind: "live", to: follower };
    return since === undefined ? [live] : [{ kind: "gap", to: follower, since }, live];
  }

  #unsubscribed({ requestMessageId, topics }: Unsubscribed): Effect[] {
    if (requestMessageId === "") return this.#revoked(topics);
    const request = this.#takePendingRequest(requestMessageId);
    this.#topics.removeSubscribed(request?.topics ?? []);
    return [];
  }

  /**
   * Ends the subscriptions that have one of these topics. One whose Subscribe has no answer yet goes on:
   * the relay judges it after this, and refuses it if need be.
   */
  #revoked(names: readonly string[]): Effect[] {
    this.#topics.removeRevoked(names);
    const topics = new Set(names);
    const effects: Effect[] = [];
    for (const follower of [...this.#followers]) {
      const isSubscribed = follower.state === "live" || follower.state === "replaying";
      const lost = follower.topics.filter((it) => topics.has(it));
      if (!isSubscribed || lost.length === 0) continue;
      this.#followers.delete(follower);
      follower.state = "revoked";
      this.#topics.addUnwanted(follower.topics.filter((it) => !topics.has(it)));
      effects.push({ kind: "revoked", to: follower, topics: lost });
    }
    return effects;
  }

  #refused(message: Refused, now: number): Effect[] {
    const { errorCode, errorMessage, fieldName, retryAfterMs } = message;
    const error = new RelayError(errorCode, errorMessage, fieldName, retryAfterMs);
    const request = this.#takePendingRequest(message.requestMessageId);
    if (request === undefined) {
      return [{ kind: "error", error, messageId: message.requestMessageId }];
    }
    const isTemporary = retryAfterMs !== undefined;
    if (isTemporary) {
      const ms = Math.min(Math.max(retryAfterMs, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS);
      this.#deferredUntil = now + ms;
    }
    if (request.kind === "unsubscribe") {
      if (isTemporary) this.#topics.addUnwanted(request.topics);
      return isTemporary ? [] : [{ kind: "error", error, messageId: "" }];
    }
    // Nothing was subscribed, also if only one topic was refused.
    const followers = request.followers.filter((it) => it.state === "requested");
    if (this.#subscribesOnce && !isTemporary)
      return this.#refusedOnly(followers, refusedTopic(request, fieldName), error);
    if (isTemporary || request.followers.length > 1) {
      for (const follower of followers) follower.state = "waiting";
      if (!isTemporary) this.#isolate(followers, refusedTopic(request, fieldName));
      return [];
    }
    return followers.map((it) => refuse(it, error));
  }

  /** Refuses those that made the one Subscribe fail, or divides them; the others are asked for again. */
  #refusedOnly(followers: Follower[], topic: string | undefined, error: RelayError): Effect[] {
    for (const follower of followers) follower.state = "waiting";
    if (topic !== undefined) {
      const faulty = followers.filter((it) => it.topics.includes(topic));
      return faulty.map((it) => refuse(it, error));
    }
    let suspects = followers.filter((it) => !it.isTaken);
    // Rights may have shrunk since the last Subscribe.
    if (suspects.length === 0) suspects = followers;
    if (suspects.length === 1) return suspects.map((it) => refuse(it, error));
    for (const follower of suspects) follower.isTaken = false;
    this.#isolate(suspects, undefined);
    return [];
  }

  /** Separates those that made a shared Subscribe fail: by the topic, or else by halves. */
  #isolate(followers: readonly Follower[], topic: string | undefined): void {
    if (topic !== undefined) {
      for (const follower of followers) follower.sendAlone ||= follower.topics.includes(topic);
      return;
    }
    const half = Math.ceil(followers.length / 2);
    for (const part of [followers.slice(0, half), followers.slice(half)]) {
      this.#groups += 1;
      for (const follower of part) follower.group = this.#groups;
    }
  }

  /** Takes an event with a position; one that is not `known` only counts. */
  #stored(event: StoredEvent, known: boolean, now: number): Effect[] {
    const due: Effect[] = [];
    const give = (to: Follower, events: StoredEvent[]) => {
      for (const it of events) due.push({ kind: "event", to, event: it });
    };
    const replay = this.#replay;
    if (replay === undefined) {
      for (const follower of this.#followers) {
        if (follower.takeLive(event) && known) give(follower, [event]);
      }
    } else {
      for (const follower of replay.followers) {
        if (follower.state !== "replaying") continue;
        const events = follower.takeReplayed(event);
        give(follower, known ? events : events.filter((it) => it !== event));
      }
    }
    if (known) this.#recent.add(event, this.#recentMax());
    if (replay !== undefined) {
      // The relay answers the next request when the replay is over.
      this.#answerDueAt = now + ANSWER_WITHIN_MS;
      replay.left -= 1;
      if (replay.left <= 0) due.push(...this.#endReplay(replay));
    }
    return due;
  }

  #endReplay(replay: Replay): Effect[] {
    this.#replay = undefined;
    const followers = replay.followers.filter((it) => it.state === "replaying");
    return followers.flatMap((it) => endReplay(it, replay.end));
  }

  /** Takes an event without a position, which has no place in the order. */
  #notStored(event: SidewireEvent): Effect[] {
    const followers = [...this.#followers];
    return followers
      .filter((it) => it.state === "live" || it.state === "replaying")
      .map((to) => ({ kind: "event", to, event }));
  }

  #raiseAll(position: Position): void {
    for (const follower of this.#followers) follower.raise(position);
  }

  #recentMax(): number {
    const waits = [...this.#followers].some(
      (it) => it.position !== undefined && (it.state === "waiting" || it.state === "requested"),
    );
    return waits ? this.#limits.waiting : this.#limits.idle;
  }

  #takePendingRequest(messageId: string): PendingRequest | undefined {
    const request = this.#pendingRequest;
    if (request?.messageId !== messageId) return undefined;
    this.#pendingRequest = undefined;
    return request;
  }

  #nextId(): string {
    this.#requests += 1;
    return `request-${this.#requests}`;
  }
}

function refuse(follower: Follower, error: RelayError): Effect {
  follower.state = "refused";
  follower.sendAlone = true;
  return { kind: "refused", to: follower, error };
}

function endReplay(follower: Follower, position: Position): Effect[] {
  const due = follower.endReplay(position);
  const events: Effect[] = due.map((event) => ({ kind: "event", to: follower, event }));
  return [...events, { kind: "live", to: follower }];
}

function isStored(event: SidewireEvent): event is StoredEvent {
  return event.position !== undefined;
}

/** Stands for an event that is counted and not passed on. */
function unknownEvent(position: Position): StoredEvent {
  return { name: "", payload: undefined, messageId: "", timestamp: 0, position };
}
