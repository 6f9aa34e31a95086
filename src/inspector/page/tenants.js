// The tenants, and the connections and topics of one.

import { call, repeat, tenantPath } from "./api.js";
import { data, field, make, settled, showError, table } from "./dom.js";
import { ago, bytes, count, plural } from "./text.js";

export const title = "Tenants";

const REFRESH_EVERY = 2000;
/** Connections on a page, so few that the topics below them are not far away. */
const CONNECTIONS_MAX = "25";

export function mount(view, context) {
  return context.rest ? mountTenant(view, context) : mountList(view, context);
}

/** Returns a link to a tenant. */
export function tenantLink(tenant) {
  const link = data("a", tenant);
  link.href = `#/tenants/${encodeURIComponent(tenant)}`;
  return link;
}

function mountList(view, { app }) {
  const search = make("input", { type: "search", placeholder: "Part of a name", "data-search": true, autocomplete: "off", spellcheck: "false" });
  const sum = make("p", null);
  const problem = make("div", null);
  const list = make("div", null);
  let skip = 0;
  view.append(
    make("div.head", null, make("h1", null, title), sum),
    make("section.card.stack", { "aria-label": "Tenants" },
      make("div.form", null, field("Search", search)), problem, list));

  const refresh = async (signal) => {
    try {
      const answer = await call("tenants", { query: { search: search.value, skip: skip || null }, signal });
      showError(problem, null);
      sum.textContent = search.value
        ? `${count(answer.found)} of ${plural(answer.all, "tenant")} match.`
        : `${plural(answer.all, "tenant")}, those with most connections first.`;
      showTenants(list, answer, skip, (to) => {
        skip = to;
        refreshing.now();
      });
    } catch (error) {
      app.failed(problem, error);
    }
  };
  search.addEventListener("input", settled(() => {
    skip = 0;
    refreshing.now();
  }));
  const refreshing = repeat(refresh, () => REFRESH_EVERY);
  return refreshing.stop;
}

function showTenants(list, { tenants, found, listed_max }, skip, go) {
  const rows = tenants.map((it) => [
    tenantLink(it.tenant), count(it.connections), count(it.users), count(it.topics), count(it.head.offset - it.tail.offset),
  ]);
  const columns = [
    { title: "Tenant" },
    { title: "Connections", type: "number" },
    { title: "Users", type: "number.wide-only" },
    { title: "Topics", type: "number.wide-only" },
    { title: "Events in the log", type: "number" },
  ];
  const none = skip ? "There are no more." : "No tenant has a connection or an event in its log.";
  keepFocus(list, () => list.replaceChildren(
    table(columns, rows, none),
    ...(found > listed_max ? [pages(skip, tenants.length, found, listed_max, go)] : [])));
}

function pages(skip, shown, found, size, go) {
  return make("div.pages", null,
    make("span", null, `${count(skip + 1)} to ${count(skip + shown)} of ${count(found)}`),
    make("span.actions", null,
      make("button", { type: "button", disabled: skip === 0, click: () => go(Math.max(skip - size, 0)) }, "Previous"),
      make("button", { type: "button", disabled: skip + shown >= found, click: () => go(skip + size) }, "Next")));
}

/** Draws a list again, and gives the focus back to the link that had it. */
function keepFocus(element, draw) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.href ?? focused?.textContent;
  draw();
  if (key) {
    [...element.querySelectorAll("a, button")].find((it) => (it.href ?? it.textContent) === key)?.focus();
  }
}

function mountTenant(view, { app, rest: tenant }) {
  const sum = make("p", null);
  const problem = make("div", null);
  const user = make("input", { type: "search", placeholder: "Every user", "data-search": true, autocomplete: "off", spellcheck: "false" });
  const topic = make("input", { type: "search", placeholder: "Every topic", autocomplete: "off", spellcheck: "false" });
  const connections = make("div", null);
  const topicSearch = make("input", { type: "search", placeholder: "Part of a topic", autocomplete: "off", spellcheck: "false" });
  const topics = make("div", null);
  const connectionsNote = make("p.quiet", null);
  const topicsNote = make("p.quiet", null);
  // The pages before the one that is shown, by what each begins behind.
  let before = [null];

  view.append(
    make("div.head", null,
      data("h1", tenant), sum,
      make("a", { href: `#/live?${new URLSearchParams({ tenant })}` }, "Watch its events")),
    problem,
    make("section.card.stack", { "aria-labelledby": "connections-title" },
      make("div.card-head", null, make("h2", { id: "connections-title" }, "Connections"), connectionsNote),
      make("div.form", null, field("User", user), field("Topic", topic)),
      connections),
    make("section.card.stack", { "aria-labelledby": "topics-title" },
      make("div.card-head", null, make("h2", { id: "topics-title" }, "Topics"), topicsNote),
      make("div.form", null, field("Search", topicSearch)),
      topics));

  const show = async (signal) => {
    try {
      const summary = await call(tenantPath(tenant), { signal });
      sum.textContent = `${plural(summary.connections, "connection")} of ${plural(summary.users, "user")}, `
        + `${plural(summary.topics, "topic")}, ${plural(summary.head.offset - summary.tail.offset, "event")} in the log`;
    } catch (error) {
      if (error.status !== 404) {
        throw error;
      }
      sum.textContent = "It has neither a connection nor an event in its log.";
    }
  };
  const listConnections = async (signal) => {
    const query = { user: user.value, topic: topic.value, limit: CONNECTIONS_MAX, after: before.at(-1) };
    const page = await call(tenantPath(tenant, "/connections"), { query, signal });
    connectionsNote.textContent = page.next || before.length > 1 ? `Page ${count(before.length)}` : "";
    showConnections(connections, page, before, (pagesBefore) => {
      before = pagesBefore;
      refreshing.now();
    });
  };
  const listTopics = async (signal) => {
    const listing = await call(tenantPath(tenant, "/topics"), { query: { search: topicSearch.value }, signal });
    topicsNote.textContent = listing.partial
      ? "The busiest of those that were looked at; search for others."
      : listing.topics.length === listing.listed_max ? `The busiest ${listing.listed_max}` : "";
    showTopics(topics, tenant, listing.topics);
  };
  const refresh = async (signal) => {
    try {
      await Promise.all([show(signal), listConnections(signal), listTopics(signal)]);
      showError(problem, null);
    } catch (error) {
      app.failed(problem, error);
    }
  };
  const changed = settled(() => {
    before = [null];
    refreshing.now();
  });
  for (const input of [user, topic, topicSearch]) {
    input.addEventListener("input", changed);
  }
  const refreshing = repeat(refresh, () => REFRESH_EVERY);
  return refreshing.stop;
}

/** The columns of a list of connections, and the cells of one. */
export const CONNECTION_COLUMNS = [
  { title: "Connection", type: "fixed" },
  { title: "User" },
  { title: "Encoding", type: "wide-only" },
  { title: "Topics", type: "number.wide-only" },
  { title: "Waiting", type: "number" },
  { title: "Open for", type: "number" },
  { title: "Address", type: "wide-only" },
];

export function connectionCells(it) {
  const transport = it.transport === "websocket" ? "WebSocket" : it.transport.toUpperCase();
  return [
    make("span.mono", null, it.id),
    data("span", it.user),
    `${transport}, ${it.encoding}`,
    count(it.topics),
    it.outbox.frames ? `${count(it.outbox.frames)} (${bytes(it.outbox.bytes)})` : make("span.quiet", null, "none"),
    ago(it.since),
    data("span.mono", it.address),
  ];
}

function showConnections(element, { connections, next }, before, go) {
  const rows = connections.map(connectionCells);
  const none = next ? "None here; there are more pages." : "No connection matches.";
  const foot = next || before.length > 1
    ? [make("div.pages", null, make("span", null, plural(connections.length, "connection")),
      make("span.actions", null,
        make("button", { type: "button", disabled: before.length === 1, click: () => go(before.slice(0, -1)) }, "Previous"),
        make("button", { type: "button", disabled: !next, click: () => go([...before, next]) }, "Next")))]
    : [];
  keepFocus(element, () => element.replaceChildren(table(CONNECTION_COLUMNS, rows, none), ...foot));
}

function showTopics(element, tenant, topics) {
  const rows = topics.map((it) => {
    const link = data("a.mono", it.topic);
    link.href = `#/live?${new URLSearchParams({ tenant, topic: it.topic })}`;
    return [link, count(it.subscriptions)];
  });
  const columns = [{ title: "Topic" }, { title: "Subscriptions", type: "number" }];
  keepFocus(element, () => element.replaceChildren(table(columns, rows, "No topic matches.")));
}
