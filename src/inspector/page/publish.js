// Publishes an event, in `sidewire dev`: a form made from an example of the event.

import { call, tenantPath } from "./api.js";
import { data, field, make, showError } from "./dom.js";
import { offerExamples, submitOnCtrlEnter } from "./explain.js";
import { plural, topicList } from "./text.js";

export const title = "Publish";

export function mount(view, { app }) {
  const tenant = make("input", { value: app.session.dev.tenant, autocomplete: "off", spellcheck: "false", required: true });
  const topics = make("input", { placeholder: "As in ?topic= of the call", autocomplete: "off", spellcheck: "false" });
  const kind = make("select", { "data-search": true });
  const fields = make("div.fields", null);
  const json = make("textarea", { spellcheck: "false", required: true });
  const problem = make("div", null);
  const result = make("div.results", { "aria-live": "polite" });
  const form = make("form.card.form", null,
    field("Tenant", tenant), field("Event", kind), field("Further topics", topics),
    make("div.field.full", null, make("span", null, "Fields"), fields),
    field("The whole event", json, "field full"),
    make("div.actions", null, make("button.primary", { type: "submit" }, "Publish"),
      make("a", { href: "#/live" }, "Watch the events")));
  view.append(
    make("div.head", null, make("h1", null, title),
      make("p", null, "Posts an event as a backend does, through the same checks.")),
    form, problem, result);

  const drawFields = () => {
    const event = parse(json.value);
    fields.replaceChildren(...(event === undefined
      ? [make("p.quiet", null, "The event is not JSON.")]
      : leavesOf(event).map((leaf) => fieldOf(leaf, () => { json.value = JSON.stringify(event, null, 2); }))));
  };
  json.addEventListener("input", drawFields);
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    try {
      const answer = await call(tenantPath(tenant.value, "/publish"), {
        query: { topic: topicList(topics.value) },
        body: json.value,
      });
      showError(problem, null);
      result.prepend(receipt(answer));
      [...result.children].slice(5).forEach((old) => old.remove());
    } catch (error) {
      app.failed(problem, error);
    }
  });
  submitOnCtrlEnter(json, form);

  const choose = (chosen) => {
    json.value = JSON.stringify(chosen.example, null, 2);
    topics.value = chosen.topic_in_call ?? "";
    drawFields();
  };
  offerExamples(kind, choose)
    .then((events) => {
      const first = events.find((it) => !it.client_publish) ?? events[0];
      if (first) {
        kind.value = first.name;
        choose(first);
      }
    })
    .catch((error) => app.failed(problem, error));
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Returns the leaves of an event; their paths begin in the payload, if that is its only member. */
function leavesOf(event) {
  const members = Object.values(event ?? {});
  const [only] = members;
  return members.length === 1 && only !== null && typeof only === "object" ? leaves(only) : leaves(event);
}

/** Returns the texts, numbers and booleans in a value, each with its path and a way to set it. */
function leaves(value, path = []) {
  return Object.entries(value ?? {}).flatMap(([key, inner]) => {
    const here = [...path, key];
    if (inner !== null && typeof inner === "object") {
      return leaves(inner, here);
    }
    return [{ path: here.join("."), value: inner, set: (changed) => { value[key] = changed; } }];
  });
}

function fieldOf({ path, value, set }, changed) {
  if (typeof value === "boolean") {
    const input = make("input", { type: "checkbox", checked: value });
    input.addEventListener("input", () => { set(input.checked); changed(); });
    return field(path, input);
  }
  const isNumber = typeof value === "number";
  const input = make("input", { value: value ?? "", inputmode: isNumber ? "decimal" : null, autocomplete: "off", spellcheck: "false" });
  input.addEventListener("input", () => {
    const number = Number(input.value);
    set(isNumber && input.value.trim() !== "" && Number.isFinite(number) ? number : input.value);
    changed();
  });
  return field(path, input);
}

function receipt({ message_id, position, topics, matched, duplicate }) {
  const reached = matched === undefined
    ? "It is in the log; a shard has not answered yet."
    : `It matched ${plural(matched, "connection")}.`;
  return make("section.card.stack", { "aria-label": "Receipt" },
    make("div.card-head", null, make("h2.good", null, duplicate ? "Was published before" : "Published"), make("p", null, reached)),
    make("p.quiet", null, "Offset ", make("b", null, position.offset), ", message id ", data("code", message_id)),
    make("p", null, ...topics.flatMap((topic) => [data("span.chip", topic), " "])));
}
