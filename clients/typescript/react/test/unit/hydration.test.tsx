/** What becomes of a page that a server has rendered. */

import { SidewireProvider, useConnection } from "@sidewire/react";
import { act, cleanup, render } from "@testing-library/react";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { startClient } from "../../../test/support/client.js";
import { Follower, type Told } from "../support/follower.js";
import { connect, event } from "../support/render.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

function Connection() {
  return <p>{useConnection().name}</p>;
}

test("it is taken over as it is, also by a client that is connected, and then is live", async () => {
  const told: Told = [];
  const { relay } = startClient();
  const page = (
    <SidewireProvider client={relay}>
      <Connection />
      <Follower told={told} />
    </SidewireProvider>
  );
  const container = document.createElement("div");
  document.body.append(container);
  container.innerHTML = renderToString(page);
  expect(container.textContent).toBe("idlepending");
  relay.connect();
  const socket = await connect("idle");
  const onRecoverableError = vi.fn();
  render(page, { container, hydrate: true, onRecoverableError });
  await act(async () => {});
  await act(async () => socket.confirm(5));
  expect(container.textContent).toBe("openlive ready");
  await event(socket, 6);
  expect(told).toEqual([6]);
  expect(onRecoverableError).not.toHaveBeenCalled();
});
