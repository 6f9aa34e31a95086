/** How a client is made. */

import type { Codec } from "./codec.js";
import type { AnyEvents } from "./event.js";
import type { Logger } from "./logger.js";
import type { TransportName } from "./transport.js";
import type { WebSocketConstructor } from "./web_socket.js";

/** How a client connects. */
export interface SidewireOptions<Events = AnyEvents> {
  /**
   * Returns a token that has not expired. It is asked for before each attempt to connect, and before
   * the token of an open connection expires. Leave it out for a relay that needs none
   * (`auth.mode = "none"`).
   */
  readonly getToken?: () => string | Promise<string>;
  /**
   * How messages are encoded, and what is known of the application's schema: `protobuf(EnvelopeSchema)`
   * of `@sidewire/client/protobuf` for Protocol Buffers with generated code, or `json(table)` for JSON
   * with the schema's routing table. Without it JSON is used, and nothing is known.
   */
  readonly schema?: Codec & { readonly events?: Events };
  /**
   * Where errors in callbacks and the like are written. Unless it is given, warnings and errors go to
   * the console, and disconnects are not written.
   */
  readonly logger?: Logger;
  /**
   * The transports that the client may use. By default these are all, and the client uses server-sent
   * events, or else long polls, while the relay answers there and not on a WebSocket.
   */
  readonly transports?: readonly TransportName[];
  /** The WebSocket to use where there is none, as in Node 20: that of the package `ws`. */
  readonly WebSocket?: WebSocketConstructor;
}
