/** Renders components with a client whose relay the test plays. */

import type { Sidewire, SidewireOptions } from "@sidewire/client";
import { SidewireProvider } from "@sidewire/react";
import { act, type RenderResult, render } from "@testing-library/react";
import { type ReactNode, StrictMode } from "react";
import { vi } from "vitest";
import { accepted, settle, startClient } from "../../../test/support/client.js";
import type { FakeSocket } from "../../../test/support/fake_socket.js";

export interface Page extends Omit<RenderResult, "rerender"> {
  readonly relay: Sidewire;
  /** Renders other components in place of those that are there, and runs their effects. */
  render(children: ReactNode): void;
  /** Does so, and lets the client send what it has to. */
  show(children: ReactNode): Promise<void>;
  /** Renders the components with another client. */
  showWith(client: Sidewire, children: ReactNode): Promise<void>;
  /** The text of the page. */
  text(): string | null;
}

/** Renders components in StrictMode, with a client that has no connection yet. */
export async function page(children: ReactNode, options?: SidewireOptions): Promise<Page> {
  const { relay } = startClient(options);
  const tree = (client: Sidewire, inner: ReactNode) => (
    <StrictMode>
      <SidewireProvider client={client}>{inner}</SidewireProvider>
    </StrictMode>
  );
  const { rerender, ...rendered } = render(tree(relay, children));
  const showWith = async (client: Sidewire, inner: ReactNode) => {
    rerender(tree(client, inner));
    await act(settle);
  };
  await act(settle);
  return {
    ...rendered,
    relay,
    render: (inner) => rerender(tree(relay, inner)),
    show: (inner) => showWith(relay, inner),
    showWith,
    text: () => rendered.container.textContent,
  };
}

/**
 * Accepts the connection. The relay confirms the only Subscribe, at offset 5, or refuses it, or there is
 * none.
 */
export async function connect(
  answer: "refused" | "idle" | Record<string, unknown> = {},
): Promise<FakeSocket> {
  const socket = await act(accepted);
  if (answer === "refused") await refuse(socket);
  else if (answer !== "idle") await act(async () => socket.confirm(5, answer));
  return socket;
}

/** Ends the connection, and returns the next one, which is accepted. */
export async function reconnect(socket: FakeSocket): Promise<FakeSocket> {
  await act(async () => {
    socket.end(1006);
    await vi.advanceTimersByTimeAsync(30_000);
  });
  return act(accepted);
}

/** Confirms the Unsubscribe that was just sent, and returns its topics. */
export async function confirmUnsubscribe(socket: FakeSocket): Promise<string[]> {
  const { messageId, unsubscribe } = socket.take();
  const { topics } = unsubscribe;
  await act(async () =>
    socket.deliver({ unsubscribeConfirmed: { topics, requestMessageId: messageId } }),
  );
  return topics;
}

/** The relay refuses the message that was just sent. */
export async function refuse(socket: FakeSocket): Promise<void> {
  const { messageId } = socket.take();
  const errorCode = "AUTHORIZATION_FAILED";
  const error = { errorCode, errorMessage: "no", requestMessageId: messageId };
  await act(async () => socket.deliver({ error }));
}

/** The relay takes the topics of a connection away. */
export function revoke(socket: FakeSocket, topics: string[]): Promise<void> {
  const unsubscribeConfirmed = { topics, requestMessageId: "" };
  return act(async () => socket.deliver({ unsubscribeConfirmed }));
}

/** The relay sends the event with this offset. */
export function event(socket: FakeSocket, offset: number): Promise<void> {
  return act(async () => socket.event(offset));
}
