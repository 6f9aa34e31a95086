// Ready tokens, in `sidewire dev`, with commands to connect as a user.

import { call } from "./api.js";
import { copyButton, field, make, showError } from "./dom.js";
import { topicList } from "./text.js";

export const title = "Connect";

export function mount(view, { app }) {
  const { dev } = app.session;
  const tenant = make("input", { value: dev.tenant, autocomplete: "off", spellcheck: "false", required: true });
  const user = make("input", { value: dev.user, autocomplete: "off", spellcheck: "false", required: true, "data-search": true });
  const grant = make("input", { placeholder: "Every topic", autocomplete: "off", spellcheck: "false" });
  const topic = make("input", { value: dev.topic ?? "", placeholder: "Only what comes without asking", autocomplete: "off", spellcheck: "false" });
  const problem = make("div", null);
  const result = make("div.results", { "aria-live": "polite" });
  const form = make("form.card.form", null,
    field("Tenant", tenant), field("User", user), field("May subscribe to", grant), field("Subscribes to", topic),
    make("div.actions", null, make("button.primary", { type: "submit" }, "Make a token")));
  view.append(
    make("div.head", null, make("h1", null, title),
      make("p", null, "A token for any user, and what to paste to connect with it.")),
    form, problem, result);

  const makeToken = async () => {
    const topics = topicList(grant.value);
    try {
      const { token } = await call("token", {
        body: JSON.stringify({ tenant: tenant.value, user: user.value, topics: topics.length ? topics : null }),
      });
      showError(problem, null);
      const wanted = topicList(topic.value);
      result.replaceChildren(
        snippet("Token, valid for 24 hours", token),
        snippet("In a terminal", tailCommand(dev, token, wanted)),
        snippet("In the console of a browser", browserStatement(dev, token, wanted)));
    } catch (error) {
      result.replaceChildren();
      app.failed(problem, error);
    }
  };
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    makeToken();
  });
  makeToken();
}

function snippet(label, text) {
  const id = `snippet-${label.replaceAll(/\W+/g, "-").toLowerCase()}`;
  const pre = make("pre.data", { id, tabindex: 0 }, text);
  return make("section.card", { "aria-label": label },
    make("div.card-head", null, make("h2", null, label), copyButton(() => text)), pre);
}

/** Quotes a text as one word of a shell command. */
function shellWord(text) {
  return /^[\w/.:+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function tailCommand(dev, token, topics) {
  const words = topics.map((topic) => ` ${shellWord(topic)}`).join("");
  return `SIDEWIRE_TOKEN=${token} ${dev.program} tail --url ${dev.client_url}${dev.schema_flags}${words}`;
}

function browserStatement(dev, token, topics) {
  const protocols = JSON.stringify(["sidewire.v1.json", `bearer.${token}`]);
  const subscribe = JSON.stringify(JSON.stringify({ subscribe: { topics } }));
  return [
    `ws = new WebSocket(${JSON.stringify(dev.client_url)}, ${protocols});`,
    `ws.onopen = () => ws.send(${subscribe});`,
    "ws.onmessage = (message) => console.log(message.data);",
  ].join("\n");
}
