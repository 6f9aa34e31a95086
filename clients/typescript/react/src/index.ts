"use client";

/**
 * React hooks for a Sidewire relay: events of topics, who is present, and the state of the connection.
 *
 * @packageDocumentation
 */

export { useConnection, usePresence, useTopic } from "./hooks.js";
export type { PresenceState } from "./presence_watch.js";
export { SidewireProvider, type SidewireProviderProps, useSidewire } from "./provider.js";
export type { SubscriptionStatus } from "./shared.js";
export type { TopicOptions } from "./topic_watch.js";
