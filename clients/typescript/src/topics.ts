/** Checks the topics of a subscription before they are sent. */

import { TOPIC_BYTES_MAX, TOPICS_MAX, topicBytes } from "./core/grouping.js";

const TOPIC = /^[a-z][a-z0-9_]{0,31}:\P{Cc}+$/u;
const ID_BYTES_MAX = 256;

/** Returns the topics without duplicates; throws a `TypeError` for what no relay accepts. */
export function checkTopics(topics: readonly string[]): string[] {
  const distinct = [...new Set(topics)];
  for (const topic of distinct) {
    const id = topic.slice(topic.indexOf(":") + 1);
    if (!TOPIC.test(topic) || new TextEncoder().encode(id).length > ID_BYTES_MAX) {
      throw new TypeError(`${JSON.stringify(topic)} is not a topic of the form kind:id`);
    }
  }
  if (distinct.length > TOPICS_MAX || topicBytes(distinct) > TOPIC_BYTES_MAX) {
    throw new TypeError(
      `a subscription has at most ${TOPICS_MAX} topics of together ${TOPIC_BYTES_MAX} bytes: divide it`,
    );
  }
  return distinct;
}
