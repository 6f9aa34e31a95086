/** With which event a component begins. */

import { useTopic } from "@sidewire/react";
import { act, cleanup } from "@testing-library/react";
import { Activity, useEffect, useLayoutEffect } from "react";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { at, type FakeSocket } from "../../../test/support/fake_socket.js";
import { Follower, Seen, type Told } from "../support/follower.js";
import { confirmUnsubscribe, connect, event, page } from "../support/render.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

/** Delivers an event when the page is shown, and its effects have not run. */
function Delivers({ socket, offset }: { socket: FakeSocket; offset: number }) {
  useLayoutEffect(() => socket.event(offset), [socket, offset]);
  return null;
}

/** Loads its state as the README says. */
function Loads({ log }: { log: Told }) {
  const { ready } = useTopic("project:1", {
    onEvent: ({ position }) => log.push(Number(position?.offset)),
    onGap: () => {},
  });
  useEffect(() => {
    if (ready) log.push("load");
  }, [ready, log]);
  return null;
}

describe("an event between the first render and the effects", () => {
  test("is part of the state that is loaded once the component is ready", async () => {
    const { show } = await page(<Follower />);
    const socket = await connect();
    const log: Told = [];
    await show([
      <Follower key="a" />,
      <Loads key="b" log={log} />,
      <Delivers key="c" socket={socket} offset={6} />,
    ]);
    await event(socket, 7);
    expect(socket.sent).toEqual([]);
    expect(log).toEqual(["load", 7]);
  });

  test("is delivered to a component that begins at a position", async () => {
    const told: Told = [];
    const { show } = await page(<Follower key="a" />);
    const socket = await connect();
    await show([
      <Follower key="a" />,
      <Follower key="b" told={told} since={at(5)} />,
      <Delivers key="c" socket={socket} offset={6} />,
    ]);
    const subscribe = await act(async () => socket.confirm(6, { recovered: true, replayed: "0" }));
    expect(subscribe.resumeFrom).toEqual(at(5));
    expect(told).toEqual([6]);
  });
});

test("a component that React has hidden and shows again is not ready at first", async () => {
  const seen: string[] = [];
  const other = <Follower key="other" />;
  const hidden = (mode: "hidden" | "visible") => (
    <Activity key="activity" mode={mode}>
      <Seen topic="project:1" seen={seen} />
    </Activity>
  );
  const { show } = await page([other, hidden("visible")]);
  const socket = await connect();
  await show([other, hidden("hidden")]);
  seen.length = 0;
  await show([other, hidden("visible")]);
  expect(seen[0]).toBe("project:1 pending false");
  expect(seen.at(-1)).toBe("project:1 live true");
  expect(socket.sent).toEqual([]);
});

describe("a component that begins at a position", () => {
  test("has a subscription of its own, which is one Subscribe in StrictMode", async () => {
    const told: Told = [];
    const { show } = await page(<Follower key="a" />);
    const socket = await connect();
    const late = <Follower key="b" told={told} since={at(3)} />;
    await show([<Follower key="a" />, late]);
    const subscribe = await act(async () => socket.confirm(5, { recovered: true, replayed: "1" }));
    expect(subscribe).toEqual({ topics: ["project:1"], resumeFrom: at(3) });
    await event(socket, 4);
    await event(socket, 6);
    expect(told).toEqual([4, 6]);
    expect(socket.sent).toEqual([]);
    await show([late]);
    expect(socket.sent).toEqual([]);
    await show([]);
    expect(socket.take().unsubscribe).toEqual({ topics: ["project:1"] });
  });

  test("does not begin anew with a later position", async () => {
    const { show, text } = await page(<Follower since={at(3)} />);
    const socket = await connect({ recovered: true });
    await show(<Follower since={at(4)} />);
    expect(socket.sent).toEqual([]);
    expect(text()).toBe("live ready");
  });

  test("keeps its subscription if its effects run again at once, as in a hot reload", async () => {
    const told: Told = [];
    const follower = <Follower told={told} since={at(3)} />;
    const { show, render } = await page(<Activity mode="visible">{follower}</Activity>);
    const socket = await connect({ recovered: true });
    await event(socket, 6);
    render(<Activity mode="hidden">{follower}</Activity>);
    await show(<Activity mode="visible">{follower}</Activity>);
    await event(socket, 7);
    expect(told).toEqual([6, 7]);
    expect(socket.sent).toEqual([]);
  });

  test("goes on where it was if React hides it and shows it again", async () => {
    const told: Told = [];
    const follower = <Follower told={told} since={at(3)} />;
    const { show } = await page(<Activity mode="visible">{follower}</Activity>);
    const socket = await connect({ recovered: true });
    await event(socket, 6);
    await show(<Activity mode="hidden">{follower}</Activity>);
    expect(await confirmUnsubscribe(socket)).toEqual(["project:1"]);
    await show(<Activity mode="visible">{follower}</Activity>);
    expect(socket.take().subscribe).toEqual({ topics: ["project:1"], resumeFrom: at(6) });
    expect(told).toEqual([6]);
  });
});
