/** Gives the hooks their client. */

import type { AnyEvents, Sidewire } from "@sidewire/client";
import { createContext, type ReactNode, useContext } from "react";

// biome-ignore lint/suspicious/noExplicitAny: a context has one type, and each client its own events.
const ClientContext = createContext<Sidewire<any> | undefined>(undefined);

/** What the provider needs. */
export interface SidewireProviderProps<Events> {
  /**
   * The client, which the application makes once and not while it renders. The provider neither connects
   * nor closes it.
   */
  readonly client: Sidewire<Events>;
  readonly children?: ReactNode;
}

/** Lets the hooks of all components within it use a client. */
export function SidewireProvider<Events>({ client, children }: SidewireProviderProps<Events>) {
  return <ClientContext value={client}>{children}</ClientContext>;
}

/** Returns the client of the provider, for example to `publish` an event. */
export function useSidewire<Events = AnyEvents>(): Sidewire<Events> {
  const client = useContext(ClientContext);
  if (client === undefined) {
    throw new Error(
      "there is no Sidewire client here: render the component within <SidewireProvider client={…}>",
    );
  }
  return client;
}
