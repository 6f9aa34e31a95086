/** What a routing table, or generated code, says about presence. */

import {
  create,
  createFileRegistry,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  type FieldDescriptorProtoSchema,
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  MessageOptionsSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { presencePayload } from "../../src/descriptor.js";
import { json } from "../../src/json.js";
import { protobuf } from "../../src/protobuf.js";
import { presencePayloads } from "../../src/routing_table.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";

/** Returns the only presence payload of a table with these members. */
function fromTable(members: Partial<Parameters<typeof presencePayloads>[0]["events"][0]>) {
  const event = { json_name: "here", presence: true, sender: [], absent: null, topics: [] };
  const payload = presencePayloads({ events: [{ ...event, ...members }] }).get("here");
  if (payload === undefined) throw new Error("it is no presence");
  return payload;
}

test("a routing table gives the user, by either name of the field", () => {
  const { userOf } = fromTable({ sender: ["sent_by_user"] });
  expect(userOf({ sentByUser: "ann" })).toBe("ann");
  expect(userOf({ sent_by_user: "ann" })).toBe("ann");
  expect(userOf({})).toBe("");
});

test("a routing table gives topics, at any depth, in lists and in maps", () => {
  const { topicsOf } = fromTable({
    topics: [
      { path: "room_id", json_path: "roomId", kind: "room" },
      { path: "open_docs[].doc_id", json_path: "openDocs[].docId", kind: "doc" },
      { path: "by_team{}.ids[]", json_path: "byTeam{}.ids[]", kind: "team" },
      { path: "topics[]", json_path: "topics[]", kind: null },
    ],
  });
  const payload = {
    roomId: "1",
    openDocs: [{ docId: "a" }, {}, { doc_id: "b" }, { docId: "" }],
    byTeam: { x: { ids: ["t"] }, y: {} },
    topics: ["list:1", "room:1"],
  };
  expect(topicsOf(payload)).toEqual(["room:1", "doc:a", "doc:b", "team:t", "list:1"]);
  expect(topicsOf({ open_docs: [{ doc_id: "c" }] })).toEqual(["doc:c"]);
  expect(topicsOf({ roomId: null, openDocs: 7 })).toEqual([]);
});

test("a routing table gives the value for absent", () => {
  const text = fromTable({ absent: { field: "my_status", value: "AWAY" } });
  expect(text.withdrawal).toEqual({ myStatus: "AWAY" });
  expect([text.isAbsent({ myStatus: "AWAY" }), text.isAbsent({})]).toEqual([true, false]);
  const isTrue = fromTable({ absent: { field: "gone", value: "true" } });
  expect(isTrue.withdrawal).toEqual({ gone: true });
  expect([isTrue.isAbsent({ gone: true }), isTrue.isAbsent({})]).toEqual([true, false]);
  const isFalse = fromTable({ absent: { field: "here", value: "false" } });
  expect([isFalse.isAbsent({ here: true }), isFalse.isAbsent({})]).toEqual([false, true]);
  const empty = fromTable({ absent: { field: "mood", value: "" } });
  expect([empty.isAbsent({ mood: "good" }), empty.isAbsent({})]).toEqual([false, true]);
  expect(fromTable({}).withdrawal).toBeUndefined();
  expect(fromTable({}).isAbsent({})).toBe(false);
});

test("JSON with a routing table takes only payloads that the schema has", () => {
  const codec = json({ events: [] });
  expect(codec.decode('{"messageId":"m","later":{}}')).toEqual({ kind: "unknown" });
  const typing = { kind: "client event", messageId: "m", name: "typing", payload: {} } as const;
  expect(() => codec.encode(typing)).toThrow("the schema has no event typing");
});

test("generated code tells which payloads are presence", () => {
  const { presence } = protobuf(EnvelopeSchema);
  expect([...(presence?.keys() ?? [])]).toEqual(["presence"]);
  const payload = presence?.get("presence");
  const here = { type: "viewing", userId: "ann", topics: ["a:1", "b:2", "a:1"] };
  expect(payload?.userOf(here)).toBe("ann");
  expect(payload?.topicsOf(here)).toEqual(["a:1", "b:2"]);
  expect(payload?.topicsOf({})).toEqual([]);
  expect(payload?.isAbsent(here)).toBe(false);
  expect(payload?.isAbsent({ ...here, absent: true })).toBe(true);
  expect(payload?.withdrawal).toEqual({ absent: true });
});

const text = (number: number, value: string) => ({
  no: number,
  wireType: WireType.LengthDelimited,
  data: new BinaryWriter().string(value).finish(),
});
const flag = (number: number) => ({
  no: number,
  wireType: WireType.Varint,
  data: Uint8Array.of(1),
});
const options = (...$unknown: ReturnType<typeof text>[]) =>
  Object.assign(create(FieldOptionsSchema), { $unknown });

type FieldInit = MessageInitShape<typeof FieldDescriptorProtoSchema>;

/** Makes what generated code has for a presence message `here` with these fields. */
function described(fields: FieldInit[]): DescMessage {
  const inner = {
    name: "Inner",
    field: [{ name: "doc_id", number: 1, type: Type.STRING, options: options(text(50510, "doc")) }],
  };
  const file = create(FileDescriptorProtoSchema, {
    name: "here.proto",
    syntax: "proto3",
    messageType: [
      {
        name: "Here",
        field: fields.map((it, index) => ({ number: index + 1, type: Type.STRING, ...it })),
        nestedType: [inner],
        oneofDecl: [{ name: "choice" }],
        options: Object.assign(create(MessageOptionsSchema), { $unknown: [flag(50513)] }),
      },
    ],
    enumType: [{ name: "Status", value: [{ name: "GONE" }, { name: "HERE", number: 1 }] }],
  });
  // Encoded and decoded, as generated code does it.
  const decoded = fromBinary(FileDescriptorProtoSchema, toBinary(FileDescriptorProtoSchema, file));
  const message = createFileRegistry(decoded, () => undefined).getMessage("Here");
  if (message === undefined) throw new Error("there is no such message");
  return message;
}

test("generated code gives topics in lists, in nested messages and in oneofs", () => {
  const nested = { type: Type.MESSAGE, typeName: ".Here.Inner" };
  const payload = presencePayload(
    described([
      { name: "open_docs", label: Label.REPEATED, ...nested },
      { name: "room_id", oneofIndex: 0, options: options(text(50510, "room")) },
      { name: "inner", oneofIndex: 0, ...nested },
    ]),
  );
  const openDocs = [{ docId: "a" }, { docId: "" }];
  const room = { case: "roomId", value: "1" };
  expect(payload?.topicsOf({ openDocs, choice: room })).toEqual(["doc:a", "room:1"]);
  const inner = { case: "inner", value: { docId: "b" } };
  expect(payload?.topicsOf({ openDocs, choice: inner })).toEqual(["doc:a", "doc:b"]);
  expect(payload?.topicsOf({ choice: { case: undefined } })).toEqual([]);
});

test("in generated code a default means absent unless the field is optional", () => {
  const field = { name: "status", type: Type.ENUM, typeName: ".Status" };
  const status = { ...field, options: options(text(50514, "GONE")) };
  const payload = presencePayload(described([status]));
  expect(payload?.withdrawal).toEqual({ status: 0 });
  expect([payload?.isAbsent({}), payload?.isAbsent({ status: 1 })]).toEqual([true, false]);
  const optional = presencePayload(
    described([{ name: "x" }, { ...status, proto3Optional: true, oneofIndex: 1 }]),
  );
  expect([optional?.isAbsent({}), optional?.isAbsent({ status: 0 })]).toEqual([false, true]);
  const mood = { name: "mood", options: options(text(50514, "")) };
  expect(presencePayload(described([mood]))?.isAbsent({})).toBe(true);
});
