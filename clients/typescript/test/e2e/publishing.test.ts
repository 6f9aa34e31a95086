/** The publisher against the real relay. */

import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PublishError, Publisher } from "../../src/publisher.js";
import { EnvelopeSchema } from "../generated/generic/v1/envelope_pb.js";
import { FaultyProxy } from "../support/faulty_proxy.js";
import { TestRelay } from "../support/relay.js";
import { until } from "../support/wait.js";

let server: TestRelay;
let publisher: Publisher;
const topics = ["doc:1"];
const event = { event: { type: "edited" } };

beforeAll(async () => {
  server = await TestRelay.start();
  publisher = new Publisher(`http://127.0.0.1:${server.ingestPort}`, { key: server.key });
});
afterAll(() => server.stop());

async function refusal(call: Promise<unknown>): Promise<PublishError> {
  const error = await call.catch((it: unknown) => it);
  if (!(error instanceof PublishError)) throw new Error("it was not refused", { cause: error });
  return error;
}

test("an event that is posted again under its id is a duplicate", async () => {
  const first = await publisher.publish("acme", event, { topics, messageId: "once" });
  expect(first).toMatchObject({ messageId: "once", topics, matched: 0, duplicate: false });
  const second = await publisher.publish("acme", event, { topics, messageId: "once" });
  expect(second).toMatchObject({ position: first.position, duplicate: true });
});

test("an id that had another event is a conflict", async () => {
  await publisher.publish("acme", event, { topics, messageId: "taken" });
  const other = { event: { type: "deleted" } };
  const error = await refusal(publisher.publish("acme", other, { topics, messageId: "taken" }));
  expect(error).toMatchObject({ status: 409, code: "CONFLICT" });
});

test("bytes are posted, with an id that the publisher adds, singly and as a batch", async () => {
  const value = { type: "edited" };
  const bytes = toBinary(
    EnvelopeSchema,
    create(EnvelopeSchema, { payload: { case: "event", value } }),
  );
  const receipt = await publisher.publish("acme", bytes, { topics });
  expect(receipt.messageId).toMatch(/^[0-9a-f-]{36}$/);
  const receipts = await publisher.publishBatch("acme", [bytes, bytes], { topics });
  const [a, b] = receipts.map((it) => Number(it.position.offset));
  expect(b).toBe(Number(a) + 1);
});

test("a batch is stored as a whole, or not at all", async () => {
  const receipts = await publisher.publishBatch("acme", [event, event], { topics });
  expect(new Set(receipts.map((it) => it.messageId)).size).toBe(2);
  const error = await refusal(publisher.publishBatch("acme", [event, { nothing: {} }], { topics }));
  expect(error).toMatchObject({ status: 400, code: "VALIDATION_ERROR" });
  expect(error.errors.map((it) => it.index)).toEqual([1]);
});

test("a condition on a topic's last event holds or is a conflict that says what holds", async () => {
  const topic = "doc:2";
  const edit = (condition: object) =>
    publisher.publish("acme", event, { topics: [topic], ifLast: [{ topic, ...condition }] });
  const first = await edit({});
  const second = await edit(first.position);
  const error = await refusal(edit(first.position));
  expect(error.code).toBe("CONFLICT");
  expect(error.current).toEqual([
    { topic, epoch: first.position.epoch, position: second.position },
  ]);
  await edit(error.current[0]?.position ?? {});
  const { epoch } = first.position;
  await publisher.publish("acme", event, { topics, ifLast: [{ topic: "doc:3", epoch }] });
});

test("a wrong key is an error that names the code", async () => {
  const stranger = new Publisher(`http://127.0.0.1:${server.ingestPort}`, { key: "wrong" });
  const error = await refusal(stranger.publish("acme", event, { topics }));
  expect(error).toMatchObject({ status: 401, code: "AUTHENTICATION_FAILED" });
});

test("an event whose answer is lost is stored once", async () => {
  const proxy = await FaultyProxy.start(server.ingestPort);
  const careful = new Publisher(`http://127.0.0.1:${proxy.port}`, {
    key: server.key,
    timeoutMs: 1_000,
  });
  const before = await publisher.publish("acme", event, { topics });
  // The request arrives, and the answer does not.
  proxy.holdAnswers();
  const published = careful.publish("acme", event, { topics });
  await until("the request", () => proxy.accepted === 1);
  await until("the second try", () => proxy.accepted === 2);
  proxy.allowAnswers();
  const receipt = await published;
  expect(receipt.duplicate).toBe(true);
  expect(Number(receipt.position.offset)).toBe(Number(before.position.offset) + 1);
  await proxy.stop();
});

// Last, since it begins another epoch.
test("an event is posted to a relay that restarts meanwhile", async () => {
  const { position } = await publisher.publish("acme", event, { topics });
  await server.kill();
  const published = publisher.publish("acme", event, { topics });
  await server.restart();
  expect((await published).position.epoch).not.toBe(position.epoch);
});
