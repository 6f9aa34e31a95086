/** Events as the application gets them. */

import type { Position } from "./position.js";

/** The payloads of a schema by name. The default knows nothing of them. */
// biome-ignore lint/suspicious/noExplicitAny: without a schema a payload can be anything.
export type AnyEvents = Record<string, any>;

/** An event of the application. */
export interface SidewireEvent<Name extends string = string, Payload = unknown> {
  /** The name of the payload in lowerCamelCase, such as `workItemUpdated`. */
  readonly name: Name;
  /** The payload. */
  readonly payload: Payload;
  /** The event's id, given by the backend or by the relay. */
  readonly messageId: string;
  /** When the event was made, in Unix seconds. */
  readonly timestamp: number;
  /** Its position. Events that are not stored have none. */
  readonly position?: Position;
}

/** Any event of a schema; its `name` tells the type of its `payload`. */
export type EventOf<Events> = {
  [Name in keyof Events & string]: SidewireEvent<Name, Events[Name]>;
}[keyof Events & string];
