/** The states of a client's connection. */

import type { ConnectionError } from "./errors.js";
import type { TransportName } from "./transport.js";

/**
 * The state of the connection:
 *
 * - `idle`: nothing was subscribed yet.
 * - `connecting`: a token is fetched, or a connection is being opened.
 * - `resuming`: the connection is open, over the named transport, and subscriptions wait for their answer or their replay.
 * - `open`: every event arrives as it is posted.
 * - `waiting`: there is no connection; `reason` says why, and `retryAt` (in ms since 1970) when the
 *   next attempt is made. Without `retryAt` the client waits for the network or for the page.
 * - `closed`: the client does not connect again by itself; `reason` says why.
 */
export type ConnectionState =
  | { readonly name: "idle" }
  | { readonly name: "connecting" }
  | { readonly name: "resuming"; readonly transport: TransportName }
  | { readonly name: "open"; readonly transport: TransportName }
  | {
      readonly name: "waiting";
      readonly reason: ConnectionError;
      readonly retryAt: number | undefined;
      /**
       * How often in a row it did not get as far as a confirmed subscription. A page cannot see why a
       * handshake is refused over HTTP: after three failures it may ask its user to log in again.
       */
      readonly failures: number;
    }
  | { readonly name: "closed"; readonly reason: ConnectionError };
