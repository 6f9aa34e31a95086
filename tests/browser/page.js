// Follows topics over `sidewire.v1.json`, as any page can: no library, no build.
//
// Address, token and topics are in the page's URL fragment:
// index.html#url=ws://127.0.0.1:3000/ws&token=…&topic=order:7
//
// With `item=item-1` too it shows who else looks at this work item, and who is typing, as the
// bundled schema has it.
"use strict";

const settings = new URLSearchParams(location.hash.slice(1));
const topics = settings.getAll("topic");
const item = settings.get("item");
if (item) {
  topics.push(`work_item:${item}`);
}

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
const comment = document.getElementById("comment");
comment.disabled = !item;
comment.oninput = () => sendTyping(comment.value !== "");
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
    // Do not reconnect if the token is not valid (4001, 4401), a backend has disconnected the user
    // (4002), the page may not connect (4403) or it has a bug; retry after anything else.
    const final = [1002, 1003, 1007, 1009, 4001, 4002, 4401, 4403];
    if (!final.includes(close.code)) {
      setTimeout(connect, 200);
    }
  };
}

/** Sends a message; the relay answers events for other clients only if it refuses them. */
function send(event) {
  requests += 1;
  socket.send(JSON.stringify({ messageId: `request-${requests}`, ...event }));
}

function sendTyping(isTyping) {
  send({ userTyping: { workItemId: item, isTyping } });
}

function subscribe(topics, resumeFrom) {
  const subscribe = { topics };
  if (resumeFrom) {
    subscribe.resumeFrom = resumeFrom;
  }
  send({ subscribe });
}

function receive(envelope) {
  if (envelope.subscriptionConfirmed) {
    confirmed(envelope.subscriptionConfirmed);
  } else if (envelope.error) {
    const { errorCode, errorMessage, fieldName } = envelope.error;
    append("errors", `${errorCode} at ${fieldName}: ${errorMessage}`);
  } else if (envelope.event) {
    received(envelope);
  } else if (envelope.userPresence) {
    showPerson(envelope.userPresence);
  } else if (envelope.userTyping) {
    showTyping(envelope.userTyping);
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
  if (item) {
    // Everybody who is there is shown again after the confirmation.
    document.getElementById("people").replaceChildren();
    send({ userPresence: { status: "PRESENCE_STATUS_ONLINE", viewingItemId: item } });
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

/** Shows what a user does, or removes the user. */
function showPerson({ userId, status }) {
  const found = findPerson(userId);
  if (status === "PRESENCE_STATUS_OFFLINE") {
    found?.remove();
    return;
  }
  const person = found ?? append("people", userId);
  person.dataset.user = userId;
  person.dataset.status = status;
}

/** Shows whether a user is typing, if the user is there. */
function showTyping({ userId, isTyping }) {
  const person = findPerson(userId);
  if (person) {
    // JSON omits fields that are false.
    person.dataset.typing = isTyping ?? false;
  }
}

function findPerson(userId) {
  const people = [...document.getElementById("people").children];
  return people.find((person) => person.dataset.user === userId);
}

function append(list, text) {
  const item = document.createElement("li");
  item.textContent = text;
  document.getElementById(list).append(item);
  return item;
}

function show(state, text = state) {
  const status = document.getElementById("status");
  status.dataset.state = state;
  status.textContent = text;
}
