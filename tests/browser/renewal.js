// Follows a topic over `sidewire.v1.json` on one connection, on which it replaces its token again
// and again. POST /token of the page's own server answers with a new one.
//
// The relay's address, the topic and the time after which to renew, in ms, are in the fragment:
// renewal.html#url=ws://127.0.0.1:3000/ws&topic=order:7&renewAfter=1000
"use strict";

const settings = new URLSearchParams(location.hash.slice(1));

// What the page has seen. It is read from outside.
const seen = { numbers: [], renewals: [], problems: [], closed: null };
let socket = null;
let isRenewing = true;

start();

async function start() {
  socket = new WebSocket(settings.get("url"), ["sidewire.v1.json", `bearer.${await newToken()}`]);
  socket.onopen = () => {
    send("subscribe", { subscribe: { topics: [settings.get("topic")] } });
    renewLater();
  };
  socket.onmessage = (message) => receive(JSON.parse(message.data));
  socket.onclose = ({ code, reason }) => {
    seen.closed = { code, reason };
    show("closed");
  };
}

async function newToken() {
  const answer = await fetch("token", { method: "POST" });
  return (await answer.json()).token;
}

function renewLater() {
  setTimeout(renew, Number(settings.get("renewAfter")));
}

async function renew() {
  if (!isRenewing) {
    return;
  }
  try {
    send(`renewal-${seen.renewals.length}`, { authenticate: { token: await newToken() } });
  } catch (error) {
    seen.problems.push(String(error));
  }
}

/** Lets the token expire. */
function stopRenewing() {
  isRenewing = false;
}

function send(messageId, message) {
  socket.send(JSON.stringify({ messageId, ...message }));
}

function receive(envelope) {
  if (envelope.subscriptionConfirmed) {
    show("live");
  } else if (envelope.event) {
    seen.numbers.push(envelope.event.data.number);
  } else if (envelope.authenticated) {
    // 64-bit integers are strings in JSON.
    const { expiresAt, revokedTopics, requestMessageId } = envelope.authenticated;
    seen.renewals.push({ expiresAt: Number(expiresAt), revokedTopics, requestMessageId });
    renewLater();
  } else {
    seen.problems.push(JSON.stringify(envelope));
  }
}

function show(state) {
  const status = document.getElementById("status");
  status.dataset.state = state;
  status.textContent = state;
}
