/** What a codec translates: the messages of the protocol, apart from their encoding. */

import type { SidewireEvent } from "./event.js";
import type { Position } from "./position.js";

/** A request about subscriptions, which the relay answers. */
export type SubscriptionRequest =
  | {
      readonly kind: "subscribe";
      readonly messageId: string;
      readonly topics: readonly string[];
      readonly resumeFrom: Position | undefined;
    }
  | {
      readonly kind: "unsubscribe";
      readonly messageId: string;
      readonly topics: readonly string[];
    };

/** An event for other clients. */
export interface ClientEvent {
  readonly kind: "client event";
  readonly messageId: string;
  /** The name of the payload in lowerCamelCase. */
  readonly name: string;
  readonly payload: unknown;
}

/** Replaces the token of the connection; the relay answers it. */
export interface Authenticate {
  readonly kind: "authenticate";
  readonly messageId: string;
  readonly token: string;
}

/** A message to the relay. */
export type Outgoing = SubscriptionRequest | Authenticate | { readonly kind: "ping" } | ClientEvent;

/** The content of one WebSocket frame. */
export type Frame = string | Uint8Array<ArrayBuffer>;

/** A message that the relay itself has made. */
export interface RelayMessage {
  /** When the relay sent it, in Unix seconds. Tokens expire by this clock. */
  readonly sentAt?: number | undefined;
}

/** The relay's answer to a Subscribe. */
export interface Confirmed extends RelayMessage {
  readonly kind: "confirmed";
  /** Empty if it confirms the topics that the token subscribes. */
  readonly requestMessageId: string;
  /** Those that the relay names as `kind:id`, which are all if they are those of the token. */
  readonly topics: readonly string[];
  /** The position of the connection; confirmations that answer no Subscribe have none. */
  readonly position: Position | undefined;
  readonly recovered: boolean;
  readonly replayed: number;
}

/** The relay's answer to a Ping. */
export interface Pong extends RelayMessage {
  readonly kind: "pong";
  readonly position: Position | undefined;
}

/** The relay refused a message, or is about to close the connection. */
export interface Refused extends RelayMessage {
  readonly kind: "refused";
  readonly requestMessageId: string;
  readonly errorCode: string;
  readonly errorMessage: string;
  readonly fieldName: string | undefined;
  readonly retryAfterMs: number | undefined;
}

/** Topics are no longer subscribed: the answer to an Unsubscribe, or a decision of the relay. */
export interface Unsubscribed extends RelayMessage {
  readonly kind: "unsubscribed";
  /** Empty if the relay has ended the subscriptions by itself. */
  readonly requestMessageId: string;
  /** Those that the relay names as `kind:id`, which are all if it has ended them by itself. */
  readonly topics: readonly string[];
}

/** The relay has taken a new token. */
export interface Authenticated extends RelayMessage {
  readonly kind: "authenticated";
  readonly requestMessageId: string;
  /** When the token expires, in Unix seconds; 0 if it does not. */
  readonly expiresAt: number;
  /** The topics that are no longer subscribed, since the token does not cover them. */
  readonly topics: readonly string[];
}

/** A control message from the relay. */
export type Control = Confirmed | Refused | Unsubscribed | Authenticated | Pong;

/** A message from the relay. */
export type Incoming =
  | Control
  | { readonly kind: "event"; readonly event: SidewireEvent }
  /**
   * An envelope without a payload, or with one that this client does not know. If it has a position,
   * it has its place in the order nevertheless.
   */
  | { readonly kind: "unknown"; readonly position: Position | undefined };

/** What a schema says about a payload that is presence. */
export interface PresencePayload {
  /** Returns the user whose presence it is; empty if the schema does not tell. */
  userOf(payload: unknown): string;
  /** Returns the topics that a payload names, without duplicates. */
  topicsOf(payload: unknown): string[];
  /** Returns true if a payload says that the user is not there. */
  isAbsent(payload: unknown): boolean;
  /** A payload that says that the user is not there, if there is one. */
  readonly withdrawal: unknown;
}

/** Translates between messages and frames. */
export interface Codec {
  /** The presence payloads by name, if the schema is known. */
  readonly presence?: ReadonlyMap<string, PresencePayload>;
  /** The subprotocol to ask for. */
  readonly subprotocol: string;
  /** Encodes a message; throws a `TypeError` for an event that the schema does not have. */
  encode(message: Outgoing): Frame;
  /** Decodes the content of a frame; throws if it is not an envelope. */
  decode(data: string | ArrayBuffer): Incoming;
  /**
   * Returns what reads an envelope that was parsed as JSON, which is all that goes over HTTP. Without it
   * the client only uses WebSockets.
   */
  jsonReader?(): Promise<EnvelopeReader>;
}

/** Reads an envelope in JSON; throws if it is none. */
export type EnvelopeReader = (envelope: unknown) => Incoming;
