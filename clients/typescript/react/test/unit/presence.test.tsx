/** Who components see on a topic, and what they show there. */

import { json } from "@sidewire/client";
import { type PresenceState, usePresence } from "@sidewire/react";
import { act, cleanup } from "@testing-library/react";
import { useEffect } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { logger } from "../../../test/support/client.js";
import type { FakeSocket } from "../../../test/support/fake_socket.js";
import { TABLE } from "../../../test/support/presence_table.js";
import { Boundary } from "../support/boundary.js";
import { confirmUnsubscribe, connect, page, reconnect, refuse, revoke } from "../support/render.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

interface Payload {
  readonly userId: string;
  readonly status: string;
  readonly projectId: string;
}
type Events = { event: object; userPresence: Payload; cursor: Omit<Payload, "status"> };
type State = PresenceState<Events>;

const OPTIONS = { schema: json(TABLE) };

interface RoomProps {
  readonly topic?: string;
  /** What it was rendered with. */
  readonly states?: State[];
  /** What it shows of itself. */
  readonly me?: string;
}

/** Shows who is present on a topic. */
function Room({ topic = "project:1", states = [], me }: RoomProps) {
  const state = usePresence<Events>(topic);
  useEffect(() => void states.push(state), [states, state]);
  const { users, status, error, set } = state;
  useEffect(() => {
    if (me !== undefined) set("userPresence", { status: me, projectId: "1" });
  }, [set, me]);
  const shown = [...users("userPresence")].map(([user, it]) => `${user} ${it.status}`);
  return <p>{[status, error?.code, ...shown].filter(Boolean).join(", ")}</p>;
}

function Nowhere() {
  const { status, users } = usePresence<Events>(undefined);
  return `${status} ${users("userPresence").size}`;
}

/** Shows the user by the effect of a child, which runs before its own. */
function Parent({ projectId }: { projectId: string }) {
  return <Me set={usePresence<Events>("project:1").set} projectId={projectId} />;
}

function Me({ set, projectId }: Pick<State, "set"> & { projectId: string }) {
  useEffect(() => set("userPresence", { status: "ONLINE", projectId }), [set, projectId]);
  return null;
}

/** Asks for a payload that is no presence. */
function Wrong() {
  return usePresence<Events>("project:1").users("event").size;
}

let messages = 0;

/** The relay shows a user to the client. */
function relayShows(socket: FakeSocket, userId: string, status: string, name = "userPresence") {
  messages += 1;
  const payload = { userId, status, projectId: "1" };
  return act(async () => socket.deliver({ messageId: `p-${messages}`, [name]: payload }));
}

/** Returns what the client has shown of itself since the last call. */
function taken(socket: FakeSocket): string[] {
  return socket.sent.splice(0).map(({ userPresence }) => userPresence.status);
}

/** Lets the client send again, which it does five times a second. */
const later = () => act(() => vi.advanceTimersByTimeAsync(200));

describe("the users on a topic", () => {
  test("come, change and go", async () => {
    const { text, show } = await page(<Room />, OPTIONS);
    expect(text()).toBe("pending");
    const socket = await connect();
    await relayShows(socket, "ann", "ONLINE");
    await relayShows(socket, "bob", "ONLINE");
    expect(text()).toBe("live, ann ONLINE, bob ONLINE");
    await relayShows(socket, "ann", "AWAY");
    await relayShows(socket, "bob", "OFFLINE");
    expect(text()).toBe("live, ann AWAY");
    await show(null);
    expect(await confirmUnsubscribe(socket)).toEqual(["project:1"]);
  });

  test("are one map for all renders between two changes, and a map never changes", async () => {
    const states: State[] = [];
    const { show } = await page(<Room states={states} />, OPTIONS);
    const socket = await connect();
    await relayShows(socket, "ann", "ONLINE");
    await relayShows(socket, "bob", "ONLINE", "cursor");
    const before = states.at(-1);
    await show(<Room states={states} />);
    expect(states.at(-1)).toBe(before);
    await relayShows(socket, "cat", "ONLINE");
    const after = states.at(-1);
    expect(after).not.toBe(before);
    expect(after?.set).toBe(before?.set);
    expect([...(before?.users("userPresence").keys() ?? [])]).toEqual(["ann"]);
    expect([...(after?.users("userPresence").keys() ?? [])]).toEqual(["ann", "cat"]);
    expect(after?.users("cursor").size).toBe(1);
    expect(after?.users("cursor")).toBe(before?.users("cursor"));
  });

  test("are shared by components, with one Subscribe, and known to those that come later", async () => {
    const { text, show } = await page(<Room key="a" />, OPTIONS);
    const socket = await connect();
    await relayShows(socket, "ann", "ONLINE");
    await show([<Room key="a" />, "; ", <Room key="b" />]);
    expect(text()).toBe("live, ann ONLINE; live, ann ONLINE");
    await show([<Room key="b" />]);
    expect(socket.sent).toEqual([]);
    await show([]);
    expect(socket.take().unsubscribe).toEqual({ topics: ["project:1"] });
  });

  test("stay during a reconnect", async () => {
    const { text } = await page(<Room />, OPTIONS);
    const socket = await connect();
    await relayShows(socket, "ann", "ONLINE");
    const next = await reconnect(socket);
    expect(text()).toBe("pending, ann ONLINE");
    await act(async () => next.confirm(5, { recovered: true }));
    expect(text()).toBe("live, ann ONLINE");
    // Nobody is shown before the Pong.
    expect(next.take()).toHaveProperty("ping");
    await act(async () => next.deliver({ pong: {} }));
    expect(text()).toBe("live");
  });

  test("are those of the new topic if it changes", async () => {
    const { text, show } = await page(<Room />, OPTIONS);
    const socket = await connect();
    await relayShows(socket, "ann", "ONLINE");
    await show(<Room topic="item:7" />);
    expect(text()).toBe("pending");
    await confirmUnsubscribe(socket);
    expect(socket.take().subscribe).toEqual({ topics: ["item:7"] });
  });

  test("are none without a topic", async () => {
    const { text, relay } = await page(<Nowhere />, OPTIONS);
    expect(text()).toBe("idle 0");
    expect(relay.state.name).toBe("idle");
  });
});

describe("what a component shows", () => {
  test("is sent once in StrictMode, and again with each change", async () => {
    const { show } = await page(<Room me="ONLINE" />, OPTIONS);
    const socket = await connect();
    expect(taken(socket)).toEqual(["ONLINE"]);
    await later();
    await show(<Room me="ONLINE" />);
    expect(taken(socket)).toEqual([]);
    await show(<Room me="AWAY" />);
    expect(taken(socket)).toEqual(["AWAY"]);
  });

  test("is withdrawn when it is unmounted, also if others stay", async () => {
    const { show } = await page([<Room key="a" />, <Room key="b" me="ONLINE" />], OPTIONS);
    const socket = await connect();
    expect(taken(socket)).toEqual(["ONLINE"]);
    await show([<Room key="a" />]);
    expect(taken(socket)).toEqual(["OFFLINE"]);
  });

  test("is shown again when a component that has shown something else is unmounted", async () => {
    const ann = <Room key="a" me="ONLINE" />;
    const { show } = await page(ann, OPTIONS);
    const socket = await connect();
    expect(taken(socket)).toEqual(["ONLINE"]);
    await show([ann, <Room key="b" me="BUSY" />]);
    await later();
    expect(taken(socket)).toEqual(["BUSY"]);
    await show([ann]);
    await later();
    expect(taken(socket).at(-1)).toBe("ONLINE");
  });

  test("ends with `withdraw`", async () => {
    const states: State[] = [];
    await page(<Room me="ONLINE" states={states} />, OPTIONS);
    const socket = await connect();
    expect(taken(socket)).toEqual(["ONLINE"]);
    await act(async () => states.at(-1)?.withdraw());
    expect(taken(socket)).toEqual(["OFFLINE"]);
  });

  test("by a child's effect, before its own, is sent too", async () => {
    await page(<Parent projectId="1" />, OPTIONS);
    expect(taken(await connect())).toEqual(["ONLINE"]);
  });

  test("has no effect after it is unmounted", async () => {
    const states: State[] = [];
    const { show } = await page([<Room key="a" />, <Room key="b" states={states} />], OPTIONS);
    const socket = await connect();
    await show([<Room key="a" />]);
    await act(async () => states.at(-1)?.set("userPresence", { status: "AWAY", projectId: "1" }));
    expect(socket.sent).toEqual([]);
  });

  test("is reported to the logger if the relay refuses it", async () => {
    const { text } = await page(<Room me="ONLINE" />, OPTIONS);
    const socket = await connect();
    await refuse(socket);
    expect(text()).toBe("live");
    expect(logger.warn).toHaveBeenCalledWith(
      "sidewire: a presence message is refused",
      expect.objectContaining({ code: "AUTHORIZATION_FAILED" }),
    );
  });
});

describe("the status", () => {
  test("of a refused topic has the error", async () => {
    const { text } = await page(<Room />, OPTIONS);
    const socket = await connect("refused");
    expect(text()).toBe("refused, AUTHORIZATION_FAILED");
    const next = await reconnect(socket);
    await act(async () => next.confirm(5));
    expect(text()).toBe("live");
  });

  test("of a revoked topic says so, and what is set then is ignored", async () => {
    const states: State[] = [];
    const { text } = await page(<Room states={states} />, OPTIONS);
    const socket = await connect();
    await revoke(socket, ["project:1"]);
    expect(text()).toBe("revoked");
    states.at(-1)?.set("userPresence", { status: "AWAY", projectId: "1" });
    expect(socket.sent).toEqual([]);
  });

  test("has ended if the application closes the client", async () => {
    const { text, relay } = await page(<Room />, OPTIONS);
    await connect();
    await act(async () => relay.close());
    expect(text()).toBe("ended");
  });
});

describe("what cannot work is an error", () => {
  beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => {}));
  afterEach(() => void vi.restoreAllMocks());

  test("without the schema", async () => {
    const { text } = await page(
      <Boundary>
        <Room />
      </Boundary>,
    );
    expect(text()).toBe(
      "TypeError: presence needs the option `schema`: json(table) or protobuf(Envelope)",
    );
  });

  test("with a payload to be shown that names no topic, and leaves nothing subscribed", async () => {
    const { text, relay } = await page(
      <Boundary>
        <Parent projectId="" />
      </Boundary>,
      OPTIONS,
    );
    expect(text()).toBe("TypeError: userPresence names no topic, so nobody would see it");
    const socket = await connect("idle");
    expect(socket.sent).toEqual([]);
    expect(relay.state.name).toBe("open");
  });

  test("with a payload that is no presence", async () => {
    const { text } = await page(
      <Boundary>
        <Wrong />
      </Boundary>,
      OPTIONS,
    );
    await connect();
    expect(text()).toBe("TypeError: event is no presence in the schema");
  });
});
