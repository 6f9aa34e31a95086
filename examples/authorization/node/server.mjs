// What a backend adds for Sidewire, with Node's own modules: an endpoint that gives a
// logged-in user a token, one that tells the relay what a user may see, and one that
// returns a project together with the position to follow it from.
//
//   node server.mjs KEYS [PORT] [INGEST_URL]
//
// KEYS is the directory with jwt.key, subscribe.key and ingest.key. With GRANT=backend in
// the environment the tokens leave the decision to the subscribe endpoint.

import { createHash, createPrivateKey, randomBytes, sign, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const [keys, port = "8080", ingestUrl = "http://127.0.0.1:3001"] = process.argv.slice(2);

const SIGNING_KEY = createPrivateKey(readFileSync(`${keys}/jwt.key`));
const SUBSCRIBE_KEY = readKey("subscribe.key");
const INGEST_KEY = readKey("ingest.key");

// As in [auth] and [[auth.keys]] of sidewire.toml.
const ISSUER = "https://app.example.com";
const AUDIENCE = "sidewire";
const KEY_ID = "es256-1";

const TOKEN_LIFETIME_S = 300;
const ALLOWED_FOR_S = 60;
const BODY_BYTES_MAX = 1024 * 1024;

/** YOUR DATABASE: the projects of each tenant, and who may see them. */
const PROJECTS = {
  acme: {
    apollo: { name: "Apollo", members: ["ann", "bob"] },
    gemini: { name: "Gemini", members: ["ann"] },
  },
};
const ADMINS = { acme: ["ann"] };

/** YOUR SESSIONS: here three users are logged in from the start, until the process ends. */
const SESSIONS = new Map();
for (const user of ["ann", "bob", "eve"]) {
  const id = randomBytes(32).toString("hex");
  SESSIONS.set(id, { tenant: "acme", user });
  console.log(`${user} has the cookie session=${id}`);
}

/** Returns the tenant and the user that are logged in. Only the session may decide this,
 * never a parameter, header or body that the browser's user can choose. */
function sessionOf(request) {
  const id = /(?:^|;\s*)session=([0-9a-f]{64})(?:;|$)/.exec(request.headers.cookie ?? "")?.[1];
  return id === undefined ? undefined : SESSIONS.get(id);
}

function maySeeProject({ tenant, user }, id) {
  return own(own(PROJECTS, tenant), id)?.members.includes(user) ?? false;
}

function maySeeAllProjects({ tenant, user }) {
  return own(ADMINS, tenant)?.includes(user) ?? false;
}

/** Returns the topics that a token lists: what its user may subscribe to until it expires. */
function grantedTopics(session) {
  // Only of this kind; which projects, the relay asks the subscribe endpoint.
  if (process.env.GRANT === "backend") return ["project:*"];
  const projects = Object.keys(own(PROJECTS, session.tenant) ?? {});
  return projects.filter((id) => maySeeProject(session, id)).map((id) => `project:${id}`);
}

/** Returns a signed token for the user. */
function mintToken(session) {
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: "ES256", typ: "JWT", kid: KEY_ID };
  const claims = {
    iss: ISSUER,
    aud: AUDIENCE,
    tenant_id: session.tenant,
    user_id: session.user,
    iat: now,
    exp: now + TOKEN_LIFETIME_S,
    topics: grantedTopics(session),
  };
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part(header)}.${part(claims)}`;
  const key = { key: SIGNING_KEY, dsaEncoding: "ieee-p1363" };
  return `${signed}.${sign("sha256", Buffer.from(signed), key).toString("base64url")}`;
}

/** `POST /relay-token`: a token for the user of the session. */
function giveToken(request, response) {
  const session = sessionOf(request);
  if (session === undefined) return answer(response, 401);
  answer(response, 200, "text/plain", mintToken(session));
}

/** Returns those of the topics that the user may subscribe to. */
function allowedTopics(session, topics) {
  return topics.filter((topic) => {
    const [, kind, id] = /^([^:]*):(.*)$/s.exec(topic) ?? [];
    if (kind !== "project") return false;
    return id === "*" ? maySeeAllProjects(session) : maySeeProject(session, id);
  });
}

/** `POST /relay-subscribe`: what the relay asks before it lets a client subscribe. A user
 * who may see nothing is a 200 with an empty list; anything else means that this endpoint
 * could not decide. */
async function allowTopics(request, response) {
  if (!hasKey(request, SUBSCRIBE_KEY)) return answer(response, 401);
  let question;
  try {
    question = JSON.parse(await body(request));
  } catch (error) {
    return answer(response, error instanceof RangeError ? 413 : 400);
  }
  const { tenant, user, topics } = question ?? {};
  const texts = [tenant, user, ...(Array.isArray(topics) ? topics : [undefined])];
  if (!texts.every((text) => typeof text === "string")) return answer(response, 400);
  const allow = allowedTopics({ tenant, user }, topics);
  answerJson(response, { allow, ttl_s: ALLOWED_FOR_S });
}

/** `GET /projects/{id}`: a project, and the position in the events that it includes. */
async function giveProject(request, response, id) {
  const session = sessionOf(request);
  if (session === undefined) return answer(response, 401);
  if (!maySeeProject(session, id)) return answer(response, 404);
  // Before the database is read: what is committed later comes as an event.
  const position = await logHead(session.tenant);
  const { name } = PROJECTS[session.tenant][id];
  answerJson(response, { project: { id, name }, position });
}

/** Returns the position of the tenant's newest event; null if there is none, or if the relay
 * does not answer. Then the page subscribes first and loads again. */
async function logHead(tenant) {
  try {
    const url = `${ingestUrl}/v1/tenants/${encodeURIComponent(tenant)}`;
    const headers = { authorization: `Bearer ${INGEST_KEY}` };
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout(1000) });
    return answer.ok ? (await answer.json()).log.head : null;
  } catch {
    return null;
  }
}

/** Compares the request's key in a time that does not depend on how much of it is right. */
function hasKey(request, key) {
  const hash = (text) => createHash("sha256").update(text).digest();
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
  return timingSafeEqual(hash(given), hash(key));
}

/** Reads a key without the newline that an editor or `openssl rand` leaves at its end. */
function readKey(name) {
  const key = readFileSync(`${keys}/${name}`, "utf8").replace(/\r?\n$/, "");
  if (key.length < 32) throw new Error(`${keys}/${name} has less than 32 characters`);
  return key;
}

/** Returns a member of an object, but nothing that all objects have, such as `constructor`. */
function own(object, name) {
  return object !== undefined && Object.hasOwn(object, name) ? object[name] : undefined;
}

async function body(request) {
  // Before anything is read: a request that is given up in the middle gets no answer.
  if (Number(request.headers["content-length"]) > BODY_BYTES_MAX) {
    throw new RangeError("the body is too large");
  }
  const parts = [];
  let bytes = 0;
  for await (const part of request) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) throw new RangeError("the body is too large");
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

function answerJson(response, value) {
  answer(response, 200, "application/json", JSON.stringify(value));
}

function answer(response, status, type = "text/plain", text = "") {
  const headers = { "cache-control": "no-store", "x-content-type-options": "nosniff" };
  response.writeHead(status, { ...headers, "content-type": type }).end(text);
}

async function route(request, response) {
  const path = request.url.split("?", 1)[0];
  const call = `${request.method} ${path}`;
  if (call === "POST /relay-token") return giveToken(request, response);
  if (call === "POST /relay-subscribe") return allowTopics(request, response);
  const project = /^GET \/projects\/([a-z0-9-]+)$/.exec(call)?.[1];
  if (project !== undefined) return giveProject(request, response, project);
  answer(response, 404);
}

const server = createServer((request, response) => {
  route(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) answer(response, 500);
  });
});
server.listen(Number(port), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
