/** The types that applications see. */

import { expectTypeOf, test } from "vitest";
import { type EventOf, Sidewire, type SidewireEvent } from "../../src/index.js";
import { type EventsOf, protobuf } from "../../src/protobuf.js";
import { EnvelopeSchema, type Event, type Message } from "../generated/generic/v1/envelope_pb.js";
import { FakeSocket } from "../support/fake_socket.js";

test("the generated schema gives the types of the payloads, without the relay's", () => {
  type Events = EventsOf<typeof EnvelopeSchema>;
  expectTypeOf<keyof Events>().toEqualTypeOf<"event" | "message" | "presence">();
  expectTypeOf<Events["message"]>().toEqualTypeOf<Message>();
  const relay = new Sidewire("ws://relay.test/ws", {
    WebSocket: FakeSocket,
    schema: protobuf(EnvelopeSchema),
  });
  const listen = () => {
    const subscription = relay.subscribe([], {
      onEvent: (event) => expectTypeOf(event).toEqualTypeOf<EventOf<Events>>(),
      onGap: () => {},
    });
    subscription.on("event", (event) =>
      expectTypeOf(event).toEqualTypeOf<SidewireEvent<"event", Event>>(),
    );
    // @ts-expect-error: the schema has no such event.
    subscription.on("evnt", () => {});
    void relay.publish("message", { type: "typing", topics: ["order:7"] });
    // @ts-expect-error: a message has no such field.
    void relay.publish("message", { kind: "typing" });
  };
  expectTypeOf(listen).toBeFunction();
});

test("in JSON mode the application may name its types, or use none", () => {
  type Events = { workItemUpdated: { workItem: { id: string } } };
  const listen = (typed: Sidewire<Events>, untyped: Sidewire) => {
    typed.subscribe([], { onGap: () => {} }).on("workItemUpdated", (event) => {
      expectTypeOf(event.payload.workItem.id).toBeString();
    });
    untyped.subscribe([], { onGap: () => {} }).on("anything", (event) => {
      expectTypeOf(event.payload).toBeAny();
    });
    void typed.publish("workItemUpdated", { workItem: { id: "1" } });
    void untyped.publish("anything", { anyField: 1 });
  };
  expectTypeOf(listen).toBeFunction();
});
