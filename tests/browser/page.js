// Follows topics over `sidewire.v1.json`, as any page can: no library, no build.
//
// Address, token and topics are in the page's URL fragment:
// index.html#url=ws://127.0.0.1:3000/ws&token=…&topic=order:7
"use strict";

const settings = new URLSearchParams(location.hash.slice(1));
const topics = settings.getAll("topic");

// The position up to which the page has all events of its topics, kept so that it misses
// nothing. See docs/protocol.md, "What a client keeps".
let position = null;
// False until this connection's subscription is confirmed. Until then events may arrive for the
// user, but events of the topics are still missing, so their positions must not be kept.
let isConfirmed = false;
// During a replay: the number of its events still to come, and the position that applies
// after it.
let replay = null;
let socket = null;
let requests = 0;

document.getElementById("topics").textContent = topics.join(", ");
connect();

function connect() {
  socket = new WebSocket(settings.get("url"), ["sidewire.v1.json", "bearer." + settings.get("token")]);
  isConfirmed = false;
  socket.onopen = () => {
    show("subscribing");
    subscribe(topics, position);
  };
  socket.onmessage = (message) => receive(JSON.parse(message.data));
  socket.onclose = (close) => {
    replay = null;
    show("closed", `closed with ${close.code} ${close.reason}`);
    // Do not reconnect if the token is no longer valid (4001), a backend has disconnected the
    // user (4002) or the page has a bug; retry after anything else.
    const final = [1002, 1003, 1007, 1009, 4001, 4002];
    if (!final.includes(close.code)) {
      setTimeout(connect, 200);
    }
  };
}

function subscribe(topics, resumeFrom) {
  const subscribe = { topics };
  if (resumeFrom) {
    subscribe.resumeFrom = resumeFrom;
  }
  requests += 1;
  socket.send(JSON.stringify({ messageId: `request-${requests}`, subscribe }));
}

function receive(envelope) {
  if (envelope.subscriptionConfirmed) {
    confirmed(envelope.subscriptionConfirmed);
  } else if (envelope.error) {
    const { errorCode, errorMessage, fieldName } = envelope.error;
    append("errors", `${errorCode} at ${fieldName}: ${errorMessage}`);
  } else if (envelope.event) {
    received(envelope);
  }
  // A page ignores payloads that it does not know.
}

function confirmed(confirmation) {
  isConfirmed = true;
  // JSON omits fields that are 0 or false, and has 64-bit integers as strings.
  const count = Number(confirmation.replayed ?? 0);
  if (count > 0) {
    replay = { left: count, then: confirmation.position };
  } else {
    position = confirmation.position;
  }
  show("live", confirmation.recovered ? `live, resumed with ${count} events` : "live");
}

function received(envelope) {
  if (envelope.position && isConfirmed) {
    position = envelope.position;
    if (replay && (replay.left -= 1) === 0) {
      position = replay.then;
      replay = null;
    }
  }
  append("events", JSON.stringify(envelope.event));
}

function append(list, text) {
  const item = document.createElement("li");
  item.textContent = text;
  document.getElementById(list).append(item);
}

function show(state, text = state) {
  const status = document.getElementById("status");
  status.dataset.state = state;
  status.textContent = text;
}
