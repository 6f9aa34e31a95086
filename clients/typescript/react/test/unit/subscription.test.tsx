/** What goes over the wire for one component. */

import { act, cleanup, render } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { startClient } from "../../../test/support/client.js";
import { FakeSocket } from "../../../test/support/fake_socket.js";
import { Boundary } from "../support/boundary.js";
import { Follower, Seen, type Told } from "../support/follower.js";
import { confirmUnsubscribe, connect, event, page, reconnect } from "../support/render.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

describe("the subscription of a component", () => {
  test("lasts as long as it is mounted", async () => {
    const told: Told = [];
    const { text, show } = await page(<Follower told={told} />);
    expect(text()).toBe("pending");
    const socket = await connect();
    expect(text()).toBe("live ready");
    await event(socket, 6);
    await show(null);
    expect(await confirmUnsubscribe(socket)).toEqual(["project:1"]);
    await event(socket, 7);
    expect(told).toEqual([6]);
  });

  test("is one Subscribe in StrictMode, also on an open connection", async () => {
    const told: Told = [];
    const { relay, show } = await page(null);
    relay.connect();
    const socket = await connect("idle");
    await show(<Follower told={told} />);
    expect(socket.take().subscribe).toEqual({ topics: ["project:1"] });
    await show(<Follower told={told} />);
    expect(socket.sent).toEqual([]);
  });

  test("gets every event once in StrictMode", async () => {
    const told: Told = [];
    const { relay } = await page(<Follower told={told} />);
    const socket = await connect();
    await event(socket, 6);
    await event(socket, 7);
    expect(told).toEqual([6, 7]);
    expect(relay.state.name).toBe("open");
    expect(socket.sent).toEqual([]);
  });

  test("stays with other callbacks, of which the last ones are called", async () => {
    const first: Told = [];
    const second: Told = [];
    const { show } = await page(<Follower told={first} />);
    const socket = await connect();
    await event(socket, 6);
    await show(<Follower told={second} />);
    await event(socket, 7);
    const next = await reconnect(socket);
    await act(async () => next.confirm(90));
    expect(first).toEqual([6]);
    expect(second).toEqual([7, "gap after 7 in project:1"]);
    expect(socket.sent).toEqual([]);
  });

  test("stays with the same topics in another array and another order", async () => {
    const { show } = await page(<Follower topics={["project:1", "project:2"]} />);
    const socket = await connect();
    await show(<Follower topics={["project:2", "project:1", "project:2"]} />);
    expect(socket.sent).toEqual([]);
  });

  test("is another one with other topics, and is not ready until that is live", async () => {
    const told: Told = [];
    const { text, show } = await page(<Follower told={told} topics={["project:1", "project:2"]} />);
    const socket = await connect();
    await show(<Follower told={told} topics={["project:2", "project:3"]} />);
    expect(text()).toBe("pending");
    // What both have is not unsubscribed in between.
    expect(await confirmUnsubscribe(socket)).toEqual(["project:1"]);
    const subscribe = await act(async () => socket.confirm(6));
    expect(subscribe.topics).toEqual(["project:2", "project:3"]);
    expect(text()).toBe("live ready");
    await event(socket, 7);
    expect(told).toEqual([7]);
  });

  test("never shows the status of the topics before", async () => {
    const seen: string[] = [];
    const { show } = await page(<Seen seen={seen} topic="project:1" />);
    await connect();
    seen.length = 0;
    await show(<Seen seen={seen} topic="project:2" />);
    expect(new Set(seen)).toEqual(new Set(["project:2 pending false"]));
  });

  test("leaves no callback at the client behind", async () => {
    const { relay, show } = await page(null);
    const on = relay.on.bind(relay);
    let callbacks = 0;
    vi.spyOn(relay, "on").mockImplementation((name, callback) => {
      callbacks += 1;
      const stop = on(name, callback);
      return () => {
        callbacks -= 1;
        stop();
      };
    });
    await show(<Follower />);
    expect(callbacks).toBe(1);
    await show(null);
    expect(callbacks).toBe(0);
  });

  test("does not exist without a topic, until there is one", async () => {
    const { text, relay, show } = await page(<Follower hasTopic={false} />);
    expect(text()).toBe("idle");
    expect(relay.state.name).toBe("idle");
    await show(<Follower />);
    await connect();
    expect(text()).toBe("live ready");
    await show(<Follower hasTopic={false} />);
    expect(text()).toBe("idle");
    expect(FakeSocket.last.take().unsubscribe).toEqual({ topics: ["project:1"] });
  });

  test("with an empty list of topics gets what the connection receives anyway", async () => {
    const told: Told = [];
    await page(<Follower topics={[]} told={told} />);
    const socket = await connect();
    await event(socket, 6);
    expect(told).toEqual([6]);
  });

  test("moves to another client with the provider", async () => {
    const { text, relay, showWith } = await page(<Follower />);
    const socket = await connect();
    const other = startClient().relay;
    await showWith(other, <Follower />);
    expect(text()).toBe("pending");
    expect(await confirmUnsubscribe(socket)).toEqual(["project:1"]);
    await connect();
    expect(text()).toBe("live ready");
    expect(relay.state.name).toBe("open");
  });
});

describe("what cannot work is an error", () => {
  beforeEach(() => void vi.spyOn(console, "error").mockImplementation(() => {}));
  afterEach(() => void vi.restoreAllMocks());

  test("without a provider, which says what to do", () => {
    const { container } = render(
      <Boundary>
        <Follower />
      </Boundary>,
    );
    expect(container.textContent).toBe(
      "Error: there is no Sidewire client here: render the component within <SidewireProvider client={…}>",
    );
  });

  test("with an invalid topic", async () => {
    const { text, relay } = await page(
      <Boundary>
        <Follower topics="project" />
      </Boundary>,
    );
    expect(text()).toBe('TypeError: "project" is not a topic of the form kind:id');
    expect(relay.state.name).toBe("idle");
  });
});
