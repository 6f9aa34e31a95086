/**
 * How many events a client handles in a second of processor time, from the frame to the callback, without
 * a network: frames are made first, and given to the client one after the other.
 *
 *   npm run bench
 */

import { create, toBinary } from "@bufbuild/protobuf";
import { Sidewire, type SidewireOptions } from "../src/index.js";
import { protobuf } from "../src/protobuf.js";
import { EnvelopeSchema } from "../test/generated/generic/v1/envelope_pb.js";

const EVENTS = 200_000;
const RUNS = 5;
const TOPIC = "order:7";
/** The id of a client's first Subscribe. */
const REQUEST = "request-1";
const EPOCH = "0123456789abcdef0123456789abcdef";

/** What the relay sends in one encoding. */
interface Encoding {
  readonly options: SidewireOptions;
  confirmed(): unknown;
  event(offset: number): unknown;
}

/** An open socket, on which the benchmark plays the relay. */
class Socket {
  static last: Socket | undefined;
  binaryType = "";
  readyState = 1;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose = null;
  onerror = null;

  constructor() {
    Socket.last = this;
  }

  send(): void {}

  close(): void {
    this.readyState = 3;
  }
}

function messageId(offset: number): string {
  return `0192f0c4-7a1b-7000-8000-${String(offset).padStart(12, "0")}`;
}

const json: Encoding = {
  options: {},
  confirmed: () =>
    JSON.stringify({
      subscriptionConfirmed: {
        topics: [TOPIC],
        requestMessageId: REQUEST,
        position: { epoch: EPOCH },
      },
    }),
  event: (offset) =>
    JSON.stringify({
      messageId: messageId(offset),
      event: { type: "order.shipped", userId: "ann" },
      timestamp: "1795303801",
      position: { epoch: EPOCH, offset: String(offset) },
    }),
};

const binary: Encoding = {
  options: { schema: protobuf(EnvelopeSchema) as NonNullable<SidewireOptions["schema"]> },
  confirmed: () => {
    const value = { topics: [TOPIC], requestMessageId: REQUEST, position: { epoch: EPOCH } };
    const payload = { case: "subscriptionConfirmed" as const, value };
    return bytes(toBinary(EnvelopeSchema, create(EnvelopeSchema, { payload })));
  },
  event: (offset) => {
    const value = { type: "order.shipped", userId: "ann" };
    const envelope = create(EnvelopeSchema, {
      messageId: messageId(offset),
      timestamp: 1795303801n,
      position: { epoch: EPOCH, offset: BigInt(offset) },
      payload: { case: "event", value },
    });
    return bytes(toBinary(EnvelopeSchema, envelope));
  },
};

/** Returns a buffer of its own, as a WebSocket brings it. */
function bytes(view: Uint8Array): unknown {
  return view.slice().buffer;
}

/** Returns the events a second. */
async function run({ options, confirmed, event }: Encoding): Promise<number> {
  const relay = new Sidewire("ws://relay.test/ws", { WebSocket: Socket, ...options });
  let handled = 0;
  const onEvent = () => {
    handled += 1;
  };
  const subscription = relay.subscribe([TOPIC], { onEvent, onGap: () => {} });
  while (Socket.last?.onopen == null) await new Promise((resolve) => setImmediate(resolve));
  const socket = Socket.last;
  socket.onopen?.();
  socket.onmessage?.({ data: confirmed() });
  await subscription.ready;
  const frames = Array.from({ length: EVENTS }, (_, index) => ({ data: event(index + 1) }));
  // Unlike the time of day it does not depend on what else the machine does.
  const began = process.cpuUsage();
  for (const frame of frames) socket.onmessage?.(frame);
  const { user, system } = process.cpuUsage(began);
  const seconds = (user + system) / 1e6;
  relay.close();
  Socket.last = undefined;
  if (handled !== EVENTS) throw new Error(`${handled} of ${EVENTS} events were handled`);
  return EVENTS / seconds;
}

for (const [name, encoding] of Object.entries({ JSON: json, "Protocol Buffers": binary })) {
  const rates: number[] = [];
  for (let left = RUNS; left > 0; left -= 1) rates.push(await run(encoding));
  rates.sort((a, b) => a - b);
  const median = Math.round(rates[Math.floor(RUNS / 2)] ?? 0);
  console.log(`${name}: ${median.toLocaleString("en")} events a second of processor time`);
}
