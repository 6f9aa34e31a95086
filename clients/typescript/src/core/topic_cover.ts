/** Wildcards: `kind:*` stands for every topic of the kind. */

/** Returns true if a topic is in the set, or a wildcard that stands for it. */
export function coversTopic(subscribed: ReadonlySet<string>, topic: string): boolean {
  return subscribed.has(topic) || subscribed.has(`${topic.slice(0, topic.indexOf(":"))}:*`);
}
