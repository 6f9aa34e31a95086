/** The WebSocket of the tests: that of Node, if it has one, else that of the package `ws`. */

import { WebSocket as Ws } from "ws";
import type { WebSocketConstructor } from "../../src/web_socket.js";

export const WebSocket: WebSocketConstructor = globalThis.WebSocket ?? Ws;
