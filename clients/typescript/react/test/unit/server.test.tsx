// @vitest-environment node
/** What a server renders. */

import { json } from "@sidewire/client";
import { SidewireProvider, useConnection, usePresence, useTopic } from "@sidewire/react";
import { renderToString } from "react-dom/server";
import { expect, test } from "vitest";
import { startClient } from "../../../test/support/client.js";
import { FakeSocket } from "../../../test/support/fake_socket.js";
import { TABLE } from "../../../test/support/presence_table.js";

function Everything({ topic }: { topic: string | undefined }) {
  const connection = useConnection();
  const { status, ready } = useTopic(topic, { onGap: () => {} });
  const presence = usePresence(topic);
  const users = presence.users("userPresence").size;
  return [connection.name, status, ready, presence.status, users].join(" ");
}

test("a server renders what is not connected yet, and does not connect", async () => {
  const { relay } = startClient({ schema: json(TABLE) });
  const html = (topic?: string) =>
    renderToString(
      <SidewireProvider client={relay}>
        <Everything topic={topic} />
      </SidewireProvider>,
    );
  expect(html("project:1")).toBe("idle pending false pending 0");
  expect(html()).toBe("idle idle false idle 0");
  await Promise.resolve();
  expect(relay.state.name).toBe("idle");
  expect(FakeSocket.all).toEqual([]);
});
