/** How a subscription stands, as a component sees it. */

import { act, cleanup } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { logger } from "../../../test/support/client.js";
import { Follower, type Told } from "../support/follower.js";
import { confirmUnsubscribe, connect, event, page, reconnect, revoke } from "../support/render.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

describe("the status", () => {
  test("is pending during a reconnect, and stays ready", async () => {
    const { text } = await page(<Follower />);
    const socket = await connect();
    const next = await reconnect(socket);
    expect(text()).toBe("pending ready");
    await act(async () => next.confirm(6, { recovered: true }));
    expect(text()).toBe("live ready");
  });

  test("of each subscription is its own", async () => {
    const { text, show, relay } = await page(<Follower key="a" />);
    const socket = await connect();
    await show([<Follower key="a" />, ", ", <Follower key="b" topics="project:2" />]);
    const next = await reconnect(socket);
    expect(text()).toBe("pending ready, pending");
    await act(async () => next.confirm(9, { recovered: true }));
    // The other one waits for its answer.
    expect(relay.state.name).toBe("resuming");
    expect(text()).toBe("live ready, pending");
  });

  test("of a refused subscription has the error, until it is asked for again", async () => {
    const { text } = await page(<Follower />);
    const socket = await connect("refused");
    expect(text()).toBe("refused AUTHORIZATION_FAILED");
    expect(logger.warn).toHaveBeenCalledTimes(1);
    const next = await reconnect(socket);
    expect(text()).toBe("pending");
    await act(async () => next.confirm(5));
    expect(text()).toBe("live ready");
  });

  test("of a revoked subscription has its lost topics, and who is mounted later asks again", async () => {
    const told: Told = [];
    const topics = ["project:1", "project:2"];
    const lost = <Follower key="a" told={told} topics={topics} />;
    const { text, show } = await page(lost);
    const socket = await connect();
    await revoke(socket, ["project:2"]);
    expect(text()).toBe("revoked project:2");
    expect(logger.warn).toHaveBeenCalledWith("sidewire: the relay has revoked project:2");
    expect(await confirmUnsubscribe(socket)).toEqual(["project:1"]);
    await show([lost, <Follower key="b" told={told} topics={topics} />]);
    expect(socket.sent.length).toBe(1);
    await act(async () => socket.confirm(6));
    await event(socket, 7);
    expect(text()).toBe("revoked project:2live ready");
    expect(told).toEqual([7]);
  });

  test("has ended if the application closes the client, also for who is mounted later", async () => {
    const { text, show, relay } = await page(<Follower key="a" />);
    await connect();
    await act(async () => relay.close());
    expect(text()).toBe("ended");
    await show([<Follower key="a" />, <Follower key="b" />]);
    expect(text()).toBe("endedended");
  });
});
