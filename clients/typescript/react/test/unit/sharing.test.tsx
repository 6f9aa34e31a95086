/** What components with the same topic share. */

import { SidewireProvider } from "@sidewire/react";
import { act, cleanup, render } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { logger, settle } from "../../../test/support/client.js";
import { Follower, type Told } from "../support/follower.js";
import { connect, event, page, reconnect } from "../support/render.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

describe("components with the same topic", () => {
  test("share one subscription until the last of them is gone", async () => {
    const told: Told = [];
    const a = <Follower key="a" name="a" told={told} />;
    const b = <Follower key="b" name="b" told={told} />;
    const { show } = await page(a);
    const socket = await connect();
    await show([a, b]);
    expect(socket.sent).toEqual([]);
    await event(socket, 6);
    await show([b]);
    expect(socket.sent).toEqual([]);
    await event(socket, 7);
    await show([]);
    expect(socket.take().unsubscribe).toEqual({ topics: ["project:1"] });
    expect(told).toEqual(["a 6", "b 6", "b 7"]);
  });

  test("share it across two roots with the same client", async () => {
    const { relay } = await page(<Follower />);
    const socket = await connect();
    const other = render(
      <SidewireProvider client={relay}>
        <Follower />
      </SidewireProvider>,
    );
    await act(settle);
    expect(other.container.textContent).toBe("live ready");
    other.unmount();
    await act(settle);
    expect(socket.sent).toEqual([]);
  });

  test("keep it if one takes the place of the other", async () => {
    const told: Told = [];
    const { show, text } = await page(<Follower key="a" name="a" told={told} />);
    const socket = await connect();
    await show(<Follower key="b" name="b" told={told} />);
    expect(text()).toBe("live ready");
    await event(socket, 6);
    expect(socket.sent).toEqual([]);
    expect(told).toEqual(["b 6"]);
  });

  test("are told even if the callback of another one throws", async () => {
    const told: Told = [];
    const error = new Error("thrown by a component");
    const rejection = new Error("rejected by a component");
    const throws = () => {
      throw error;
    };
    const { text } = await page([
      <Follower key="a" does={throws} />,
      <Follower key="b" does={() => Promise.reject(rejection)} />,
      <Follower key="c" told={told} />,
    ]);
    const socket = await connect();
    await event(socket, 6);
    await event(socket, 7);
    expect(told).toEqual([6, 7]);
    expect(text()).toBe("live readylive readylive ready");
    expect(logger.error).toHaveBeenCalledTimes(4);
    expect(logger.error).toHaveBeenCalledWith("sidewire: a callback failed", error);
    expect(logger.error).toHaveBeenCalledWith("sidewire: a callback failed", rejection);
  });

  test("are all told of a gap, before any later event", async () => {
    const told: Told[] = [[], []];
    await page(told.map((it, index) => <Follower key={String(index)} told={it} />));
    const socket = await connect();
    const next = await reconnect(socket);
    await act(async () => next.confirm(90));
    await event(next, 91);
    expect(told).toEqual([
      ["gap after 5 in project:1", 91],
      ["gap after 5 in project:1", 91],
    ]);
  });

  test("are not told what comes after another one's callback has removed them", async () => {
    const told: Told = [];
    const { unmount } = await page([
      <Follower key="a" does={() => unmount()} />,
      <Follower key="b" told={told} />,
    ]);
    const socket = await connect();
    await event(socket, 6);
    expect(told).toEqual([]);
    expect(socket.take().unsubscribe).toEqual({ topics: ["project:1"] });
  });
});
