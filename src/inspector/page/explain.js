// Explains an event that a person pastes: its topics, why it has them, and who would get it.

import { call, tenantPath } from "./api.js";
import { data, field, make, showError, table } from "./dom.js";
import { CONNECTION_COLUMNS, connectionCells } from "./tenants.js";
import { count, plural, topicList } from "./text.js";

export const title = "Explain";

export function mount(view, { app }) {
  const tenant = make("input", { value: app.session.dev?.tenant ?? "", placeholder: "Whose connections to look at", autocomplete: "off", spellcheck: "false", required: true });
  const topics = make("input", { placeholder: "As in ?topic= of the call", autocomplete: "off", spellcheck: "false" });
  const example = make("select", null, make("option", { value: "" }, "Choose an event"));
  const event = make("textarea", { placeholder: "Paste an event as JSON", spellcheck: "false", required: true, "data-search": true });
  const problem = make("div", null);
  const result = make("div.results", { "aria-live": "polite" });
  const form = make("form.card.form", null,
    field("Tenant", tenant), field("Further topics", topics), field("Example", example),
    field("Event", event, "field full"),
    make("div.actions", null, make("button.primary", { type: "submit" }, "Explain"),
      make("span.quiet", null, "Nothing is published.")));
  view.append(
    make("div.head", null, make("h1", null, title),
      make("p", null, "Which topics an event has and why, and who would get it.")),
    form, problem, result);

  const explain = async () => {
    try {
      const report = await call(tenantPath(tenant.value, "/route"), {
        query: { topic: topicList(topics.value) },
        body: event.value,
      });
      showError(problem, null);
      result.replaceChildren(...(report.taken ? reportCards(report) : [refusal(report)]));
    } catch (error) {
      result.replaceChildren();
      app.failed(problem, error);
    }
  };
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    explain();
  });
  submitOnCtrlEnter(event, form);
  offerExamples(example, (chosen) => {
    event.value = JSON.stringify(chosen.example, null, 2);
    topics.value = chosen.topic_in_call ?? "";
  }).catch((error) => app.failed(problem, error));
}

/** Sends the form when a person presses Ctrl and Enter in a text of several lines. */
export function submitOnCtrlEnter(input, form) {
  input.addEventListener("keydown", (pressed) => {
    if (pressed.key === "Enter" && (pressed.ctrlKey || pressed.metaKey)) {
      form.requestSubmit();
    }
  });
}

/** Fills a list with the events of the schema, and calls `chosen` with the one that is chosen. */
export async function offerExamples(select, chosen) {
  const events = await call("schema");
  const option = (it) => {
    const name = it.presence ? `${it.name} (presence)` : it.client_publish ? `${it.name} (client event)` : it.name;
    return make("option", { value: it.name }, name);
  };
  select.append(...events.map(option));
  select.addEventListener("change", () => {
    const found = events.find((it) => it.name === select.value);
    if (found) {
      chosen(found);
    }
  });
  return events;
}

function refusal(report) {
  return make("div.card.stack", null,
    make("h2.bad", null, "The relay would refuse this event"),
    data("p", report.message),
    report.field ? make("p.quiet", null, "Field ", data("code", report.field)) : null);
}

function reportCards({ payload, fields, extra_topics, audience }) {
  const origins = [
    ...fields.map((it) => [data("span.mono", it.path), it.value ? data("span", it.value) : make("span.quiet", null, "empty"),
      it.topic ? data("span.mono", it.topic) : make("span.quiet", null, "none")]),
    ...extra_topics.map((it) => [data("span.mono", it.from), "", data("span.mono", it.topic)]),
  ];
  const subscriptions = audience.topics.map((it) => [data("span.mono", it.topic), count(it.subscriptions)]);
  const matched = audience.matched === null
    ? `More connections than are counted, at least ${count(Math.max(...audience.topics.map((it) => it.subscriptions)))}`
    : plural(audience.matched, "connection");
  return [
    make("section.card.stack", { "aria-labelledby": "why-title" },
      make("div.card-head", null, make("h2", { id: "why-title" }, "Why it has these topics"),
        make("p.quiet", null, `${payload.name}, ${payload.message}`)),
      table([{ title: "Field" }, { title: "Value" }, { title: "Topic" }], origins, "It has none.")),
    make("section.card.stack", { "aria-labelledby": "who-title" },
      make("div.card-head", null, make("h2", { id: "who-title" }, "Who would get it"), make("p", null, matched)),
      table([{ title: "Topic" }, { title: "Subscriptions", type: "number" }], subscriptions, "")),
    ...(audience.connections.length ? [connectionsCard(audience)] : []),
  ];
}

function connectionsCard({ matched, connections }) {
  const isAll = matched === connections.length;
  return make("section.card.stack", { "aria-labelledby": "connections-title" },
    make("div.card-head", null, make("h2", { id: "connections-title" }, "Connections"),
      make("p.quiet", null, isAll ? "" : `${count(connections.length)} of them`)),
    table(CONNECTION_COLUMNS, connections.map(connectionCells), ""));
}
