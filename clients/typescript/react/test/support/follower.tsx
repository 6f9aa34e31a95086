/** A component that follows topics. */

import type { Position } from "@sidewire/client";
import { useTopic } from "@sidewire/react";

/** The offsets of events, and gaps, in their order. */
export type Told = (number | string)[];

interface FollowerProps {
  readonly topics?: string | readonly string[];
  readonly hasTopic?: boolean;
  readonly told?: Told;
  readonly since?: Position | undefined;
  /** Put before each offset that is told. */
  readonly name?: string;
  /** Called with each event too. */
  readonly does?: () => unknown;
}

/** Shows how its subscription stands, and keeps what it is told. */
export function Follower(props: FollowerProps) {
  const { topics = "project:1", hasTopic = true, told = [], since, name, does } = props;
  const { status, ready, error, revokedTopics } = useTopic(hasTopic ? topics : undefined, {
    since,
    onEvent: ({ position }) => {
      const offset = Number(position?.offset);
      told.push(name === undefined ? offset : `${name} ${offset}`);
      return does?.();
    },
    onGap: (after, of) => told.push(`gap after ${after.offset} in ${of}`),
  });
  const words = [status, ready && "ready", error?.code, ...revokedTopics];
  return <p>{words.filter(Boolean).join(" ")}</p>;
}

/** Keeps what it is rendered with. */
export function Seen({ topic, seen }: { topic: string; seen: string[] }) {
  const { status, ready } = useTopic(topic);
  seen.push(`${topic} ${status} ${ready}`);
  return null;
}
