/** The hooks. */

import type { AnyEvents, ConnectionState, Sidewire } from "@sidewire/client";
import { useCallback, useLayoutEffect, useSyncExternalStore } from "react";
import { type PresenceState, PresenceWatch } from "./presence_watch.js";
import { useSidewire } from "./provider.js";
import type { SubscriptionStatus } from "./shared.js";
import { type TopicOptions, TopicWatch, topicsKey } from "./topic_watch.js";
import { useWatch } from "./use_watch.js";

/**
 * Subscribes to a topic, or to several, while the component is mounted, and returns how that stands.
 * Components with the same topics share one subscription. Without a topic (`undefined`) it subscribes
 * to nothing.
 *
 * An event does not name the topics for which it was sent, so `onEvent` may also get the events of the
 * client's other subscriptions; tell them apart by their payloads.
 */
export function useTopic<Events = AnyEvents>(
  topics: string | readonly string[] | undefined,
  options?: TopicOptions<Events>,
): SubscriptionStatus {
  const watch = useWatch(newTopicWatch<Events>, useSidewire<Events>(), topicsKey(topics));
  // Before any effect of the application, and before it is subscribed.
  useLayoutEffect(() => watch.update(options));
  return useSyncExternalStore(watch.subscribe, watch.getStatus, watch.initialStatus);
}

/**
 * Subscribes to a topic, or to a wildcard, while the component is mounted, and returns who is present on
 * it. Components with the same topic share one subscription. Without a topic (`undefined`) it subscribes
 * to nothing.
 */
export function usePresence<Events = AnyEvents>(topic: string | undefined): PresenceState<Events> {
  const watch = useWatch(newPresenceWatch<Events>, useSidewire<Events>(), topic);
  return useSyncExternalStore(watch.subscribe, watch.getState, watch.getState);
}

/** Returns the state of the client's connection. On a server it is `idle`. */
export function useConnection(): ConnectionState {
  const relay = useSidewire();
  const subscribe = useCallback((render: () => void) => relay.on("state", render), [relay]);
  return useSyncExternalStore(
    subscribe,
    () => relay.state,
    () => IDLE,
  );
}

const IDLE: ConnectionState = { name: "idle" };

const newTopicWatch = <Events>(relay: Sidewire<Events>, key: string | undefined) =>
  new TopicWatch(relay, key);

const newPresenceWatch = <Events>(relay: Sidewire<Events>, topic: string | undefined) =>
  new PresenceWatch(relay, topic);
