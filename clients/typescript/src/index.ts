/**
 * The client of a Sidewire relay: subscribes to topics over a WebSocket or HTTP, and resumes after every
 * disconnect.
 *
 * @packageDocumentation
 */

export type { PublishOptions, PublishRefusal, Sendable } from "./client_event.js";
export type {
  Authenticate,
  Authenticated,
  ClientEvent,
  Codec,
  Confirmed,
  Control,
  EnvelopeReader,
  Frame,
  Incoming,
  Outgoing,
  Pong,
  PresencePayload,
  Refused,
  RelayMessage,
  SubscriptionRequest,
  Unsubscribed,
} from "./codec.js";
export {
  type ConnectionEnd,
  ConnectionError,
  type ConnectionErrorCode,
  RelayError,
  type RelayErrorCode,
} from "./errors.js";
export type { AnyEvents, EventOf, SidewireEvent } from "./event.js";
export { SlowIterationError } from "./event_queue.js";
export { json } from "./json.js";
export type { Logger } from "./logger.js";
export type { SidewireOptions } from "./options.js";
export type { Position } from "./position.js";
export type { Presence, PresenceChange, PresenceOptions } from "./presence.js";
export type { RoutingTable, RoutingTableEvent, RoutingTableTopic } from "./routing_table.js";
export { Sidewire } from "./sidewire.js";
export type { ConnectionState } from "./state.js";
export type { SubscribeOptions, Subscription, SubscriptionState } from "./subscription.js";
export type { TransportName } from "./transport.js";
export type { WebSocketConstructor, WebSocketLike } from "./web_socket.js";
