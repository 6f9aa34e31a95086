/**
 * The routing table of a schema, as `sidewire schema --format json` prints it, and what it says about
 * presence.
 */

import type { PresencePayload } from "./codec.js";

type JsonObject = Readonly<Record<string, unknown>>;

/** A payload in a routing table. */
export interface RoutingTableEvent {
  readonly json_name: string;
  readonly presence: boolean;
  readonly sender: readonly string[];
  readonly absent: { readonly field: string; readonly value: string } | null;
  readonly topics: readonly RoutingTableTopic[];
}

/** A field that gives topics. */
export interface RoutingTableTopic {
  readonly path: string;
  readonly json_path: string;
  readonly kind: string | null;
}

/** The members of `sidewire schema --format json` that the client uses. */
export interface RoutingTable {
  readonly events: readonly RoutingTableEvent[];
}

/** Returns the presence payloads of a schema by name. */
export function presencePayloads(table: RoutingTable): Map<string, PresencePayload> {
  const payloads = table.events.filter((it) => it.presence);
  return new Map(payloads.map((it) => [it.json_name, presencePayload(it)]));
}

function presencePayload({ sender, absent, topics }: RoutingTableEvent): PresencePayload {
  const absentField = absent === null ? undefined : { ...absent, ...absentJson(absent.value) };
  return {
    userOf: (payload) => {
      const user = field(payload, sender[0] ?? "");
      return typeof user === "string" ? user : "";
    },
    topicsOf: (payload) => [...new Set(topics.flatMap((it) => topicsAt(payload, it)))],
    isAbsent: (payload) => {
      if (absentField === undefined) return false;
      const value = field(payload, absentField.field) ?? absentField.missing;
      return value === absentField.json;
    },
    withdrawal:
      absentField === undefined ? undefined : { [jsonName(absentField.field)]: absentField.json },
  };
}

/** Returns the value in JSON, and that of a field that JSON leaves out because it has its default. */
function absentJson(value: string): { json: unknown; missing: unknown } {
  if (value === "true" || value === "false") return { json: value === "true", missing: false };
  return { json: value, missing: "" };
}

function topicsAt(payload: unknown, { path, json_path, kind }: RoutingTableTopic): string[] {
  const protoNames = path.split(".");
  let values = [payload];
  json_path.split(".").forEach((part, index) => {
    const name = part.replace(/(\[\]|\{\})$/, "");
    const protoName = (protoNames[index] ?? "").replace(/(\[\]|\{\})$/, "");
    // The elements of a list, and the values of a map.
    const inside = (value: unknown) =>
      part === name ? [value] : Object.values((value ?? {}) as object);
    values = values.flatMap((it) => inside(member(it, name) ?? member(it, protoName)));
  });
  const ids = values.filter((it) => typeof it === "string" && it !== "");
  return ids.map((id) => (kind === null ? `${id}` : `${kind}:${id}`));
}

/** Returns a field by the name that it has in the .proto. */
function field(payload: unknown, name: string): unknown {
  return member(payload, jsonName(name)) ?? member(payload, name);
}

function member(value: unknown, name: string): unknown {
  return typeof value === "object" ? (value as JsonObject | null)?.[name] : undefined;
}

/** Returns the name that a field has in JSON: `user_id` is `userId`. */
function jsonName(name: string): string {
  return name.replace(/_+([a-z0-9]?)/gi, (_, next: string) => next.toUpperCase());
}
