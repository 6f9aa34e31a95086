/** Which subscriptions share a Subscribe, and in which order Subscribes are sent. */

import { compareOffsets, type Position } from "../position.js";
import type { Follower } from "./follower.js";

/** The most topics that the relay accepts in one Subscribe. */
export const TOPICS_MAX = 1_000;
/** The most bytes of topics in one Subscribe: the relay accepts messages of 64 KiB. */
export const TOPIC_BYTES_MAX = 48 * 1024;

const utf8 = new TextEncoder();

/** Returns the bytes of topics in a Subscribe, in JSON, where they are longest. */
export function topicBytes(topics: readonly string[]): number {
  return utf8.encode(JSON.stringify(topics)).length;
}

/**
 * Sorts by position: those in the relay's epoch first, the lowest offset first, and those without
 * a position last.
 */
export function inResumeOrder(followers: readonly Follower[], epoch?: string): Follower[] {
  return [...followers].sort(
    (a, b) => rank(a.position, epoch) - rank(b.position, epoch) || compare(a.position, b.position),
  );
}

/** Returns the first one, and those after it that can share its Subscribe. */
export function takeJoinable(followers: readonly Follower[]): Follower[] {
  const [first, ...others] = followers;
  if (first === undefined) return [];
  const joined = [first];
  let count = first.topics.length;
  let bytes = topicBytes(first.topics);
  for (const other of others) {
    if (!isSame(first.position, other.position)) break;
    if (first.sendAlone || other.sendAlone || first.group !== other.group) continue;
    count += other.topics.length;
    bytes += topicBytes(other.topics);
    if (count > TOPICS_MAX || bytes > TOPIC_BYTES_MAX) break;
    joined.push(other);
  }
  return joined;
}

/** Splits topics so that each part fits into one message, and removes duplicates. */
export function splitTopics(topics: readonly string[]): string[][] {
  const parts: string[][] = [];
  let bytes = 0;
  for (const topic of new Set(topics)) {
    const last = parts.at(-1);
    const size = topicBytes([topic]);
    bytes += size;
    if (last !== undefined && last.length < TOPICS_MAX && bytes <= TOPIC_BYTES_MAX) {
      last.push(topic);
    } else {
      bytes = size;
      parts.push([topic]);
    }
  }
  return parts;
}

function rank(position: Position | undefined, epoch: string | undefined): number {
  if (position === undefined) return 2;
  return position.epoch === epoch ? 0 : 1;
}

function compare(a: Position | undefined, b: Position | undefined): number {
  if (a === undefined || b === undefined) return 0;
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  return compareOffsets(a.offset, b.offset);
}

function isSame(a: Position | undefined, b: Position | undefined): boolean {
  return a?.epoch === b?.epoch && a?.offset === b?.offset;
}
