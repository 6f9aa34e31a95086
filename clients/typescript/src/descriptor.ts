/** What the annotations in a generated schema say about presence. */

import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import type { PresencePayload } from "./codec.js";

// The numbers of the options in sidewire/v1/options.proto. Generated code keeps options as unknown
// fields, so no generated code for that file is needed.
const TOPIC = 50510;
const SENDER = 50512;
const PRESENCE = 50513;
const ABSENT = 50514;
/** A field without `optional`, which has its default if it is not sent. */
const IMPLICIT_PRESENCE = 2;

type Fields = Readonly<Record<string, unknown>>;

/** Returns the presence payload of a message, or nothing if it is none. */
export function presencePayload(message: DescMessage): PresencePayload | undefined {
  if (!isTrue(message, PRESENCE)) return undefined;
  const sender = message.fields.find((it) => isTrue(it, SENDER));
  const absent = message.fields.find((it) => option(it, ABSENT) !== undefined);
  const absentValue = absent === undefined ? undefined : namedValue(absent, text(absent, ABSENT));
  return {
    userOf: (payload) => String((payload as Fields)[sender?.localName ?? ""] ?? ""),
    topicsOf: (payload) => [...new Set(topicsIn(message, payload as Fields))],
    isAbsent: (payload) => {
      if (absent === undefined) return false;
      const value = (payload as Fields)[absent.localName] ?? valueIfMissing(absent);
      return value === absentValue;
    },
    withdrawal: absent === undefined ? undefined : { [absent.localName]: absentValue },
  };
}

/** Returns the value of a field that the option names. */
function namedValue(field: DescField, name: string): unknown {
  if (field.fieldKind === "enum") return field.enum.values.find((it) => it.name === name)?.number;
  return isBool(field) ? name === "true" : name;
}

function valueIfMissing(field: DescField): unknown {
  if (field.presence !== IMPLICIT_PRESENCE) return undefined;
  if (field.fieldKind === "enum") return 0;
  return isBool(field) ? false : "";
}

function isBool(field: DescField): boolean {
  return field.fieldKind === "scalar" && field.scalar === ScalarType.BOOL;
}

function topicsIn(message: DescMessage, value: Fields): string[] {
  return message.fields.flatMap((field) => {
    const values = valuesIn(field, value);
    const inside = field.message;
    if (inside != null) return values.flatMap((it) => topicsIn(inside, it as Fields));
    if (option(field, TOPIC) === undefined) return [];
    const kind = text(field, TOPIC);
    const ids = values.filter((it) => it !== "");
    return ids.map((id) => (kind === "*" ? `${id}` : `${kind}:${id}`));
  });
}

/** Returns the values that a field has in a message: those of a list or a map, one, or none. */
function valuesIn(field: DescField, message: Fields): unknown[] {
  let value = message[field.localName];
  if (field.oneof !== undefined) {
    const chosen = message[field.oneof.localName] as { case?: string; value?: unknown } | undefined;
    value = chosen?.case === field.localName ? chosen.value : undefined;
  }
  if (value === undefined) return [];
  return field.fieldKind === "list" || field.fieldKind === "map"
    ? Object.values(value as object)
    : [value];
}

function text(field: DescField, number: number): string {
  const data = option(field, number);
  return data === undefined ? "" : new BinaryReader(data).string();
}

function isTrue(of: DescMessage | DescField, number: number): boolean {
  return option(of, number)?.[0] === 1;
}

/** Returns the encoded value of an option. */
function option(of: DescMessage | DescField, number: number): Uint8Array | undefined {
  return of.proto.options?.$unknown?.find((it) => it.no === number)?.data;
}
