/** The topics that the token subscribes when a connection is opened. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { follow, settle, startClient } from "../support/client.js";
import { at, FakeSocket } from "../support/fake_socket.js";

beforeEach(() => {
  vi.useFakeTimers();
  vi.clearAllMocks();
});
afterEach(() => vi.useRealTimers());

/** A client whose token subscribes project:1 and team:*. */
async function claimed() {
  const client = startClient();
  const followed = follow(client.relay, ["project:1", "project:2"]);
  await settle();
  const socket = FakeSocket.last;
  socket.accept();
  socket.deliver({ messageId: "c", subscriptionConfirmed: { topics: ["project:1", "team:*"] } });
  await settle();
  socket.confirm(5);
  return { ...client, ...followed, socket };
}

test("topics of the token do not answer a Subscribe, and change no position", async () => {
  const { subscription, socket, told } = await claimed();
  expect(subscription.position).toEqual(at(5));
  socket.event(6);
  expect(told).toEqual([6]);
});

test("topics of the token stay subscribed if a subscription that names one of them ends", async () => {
  const { subscription, socket } = await claimed();
  subscription.unsubscribe();
  await settle();
  expect(socket.take().unsubscribe).toEqual({ topics: ["project:2"] });
  expect(socket.sent).toEqual([]);
});

test("topics of the token that are revoked end the subscriptions that name them", async () => {
  const { subscription, socket, relay } = await claimed();
  const team = follow(relay, ["team:*"], { onRevoked: () => {} });
  await settle();
  socket.confirm(5);
  socket.deliver({ unsubscribeConfirmed: { topics: ["team:*"] } });
  expect(team.subscription.state).toBe("revoked");
  expect(subscription.state).toBe("live");
});
