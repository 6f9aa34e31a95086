// The events of a tenant or topic as they pass. The page asks for the newest events; when more
// pass than it is told of, it says how many it left out.

import { call, repeat, tenantPath } from "./api.js";
import { data, field, make, settled, showError } from "./dom.js";
import { bytes, clock, count, plural } from "./text.js";

export const title = "Live";

/** Events that stay in the list. */
const KEPT_MAX = 200;
const ASK_EVERY = 500;
/** While events are left out, the list moves more slowly, so that it can be read. */
const ASK_EVERY_BUSY = 1000;
/** Characters of an event that a line shows. */
const PREVIEW_MAX = 240;

export function mount(view, { app, query }) {
  const tenant = make("input", { list: "tenants", value: query.get("tenant") ?? app.session.dev?.tenant ?? "", autocomplete: "off", spellcheck: "false", required: true });
  const topic = make("input", { value: query.get("topic") ?? "", placeholder: "Every topic, or room:7, or room:*", autocomplete: "off", spellcheck: "false" });
  const filter = make("input", { type: "search", placeholder: "Text in the event", "data-search": true, autocomplete: "off", spellcheck: "false" });
  const names = make("datalist", { id: "tenants" });
  const pause = make("button", { type: "button", "data-pause": true, "aria-pressed": "false" }, "Pause");
  const clear = make("button", { type: "button" }, "Clear");
  const problem = make("div", null);
  const state = make("p.quiet", { role: "status" });
  const sampled = make("p.notice", { role: "status", hidden: true });
  const list = make("div.events", null);
  const none = make("p.none", null);

  view.append(
    make("div.head", null, make("h1", null, title),
      make("p", null, "Events of backends as they enter the log. Client events and presence are not in it.")),
    make("form.card.form", { submit: (event) => { event.preventDefault(); restart(); } },
      field("Tenant", tenant), field("Topic", topic), field("Filter", filter),
      make("div.actions", null, pause, clear), names),
    make("section.card", { "aria-label": "Events" },
      make("div.card-head", null, state), problem, sampled, list, none));

  let after = null;
  let isPaused = false;
  let isBusy = false;
  let passed = 0;
  let restarted = new AbortController();

  const matches = (item) => item.text.includes(filter.value.toLowerCase());
  const items = [];
  const filterItems = () => {
    let shown = 0;
    for (const item of items) {
      item.element.hidden = !matches(item);
      shown += item.element.hidden ? 0 : 1;
    }
    none.hidden = shown > 0;
    none.textContent = items.length ? "No event matches the filter." : tenant.value ? "Waiting for an event." : "Name a tenant to see its events.";
  };
  const describe = () => {
    const what = isPaused ? "Paused" : "Live";
    state.textContent = tenant.value ? `${what}: ${plural(passed, "event")} since the view was opened` : "";
  };
  const add = (events) => {
    for (const event of events) {
      const item = eventItem(tenant.value, event, app);
      items.unshift(item);
      list.prepend(item.element);
    }
    for (const item of items.splice(KEPT_MAX)) {
      item.element.remove();
    }
    filterItems();
  };
  const ask = async (signal) => {
    if (isPaused || !tenant.value) {
      filterItems();
      return;
    }
    const asked = restarted.signal;
    try {
      const answer = await call(tenantPath(tenant.value, "/events"), {
        query: { topic: topic.value.trim(), after },
        signal: AbortSignal.any([signal, asked]),
      });
      if (asked.aborted || isPaused) {
        return;
      }
      showError(problem, null);
      if (answer.head) {
        passed += after ? answer.events.length + answer.skipped : 0;
        after = `${answer.head.epoch}:${answer.head.offset}`;
      }
      isBusy = answer.skipped > 0;
      showSampling(sampled, answer, topic.value.trim());
      add(answer.events);
      describe();
    } catch (error) {
      if (!asked.aborted) {
        app.failed(problem, error);
      }
    }
  };
  const restart = () => {
    restarted.abort();
    restarted = new AbortController();
    [after, passed, isBusy] = [null, 0, false];
    items.splice(0).forEach((item) => item.element.remove());
    sampled.hidden = true;
    showError(problem, null);
    const place = new URLSearchParams({ tenant: tenant.value });
    if (topic.value) {
      place.set("topic", topic.value.trim());
    }
    history.replaceState(null, "", `#/live?${place}`);
    describe();
    filterItems();
    asking.now();
  };
  const changed = settled(restart, 400);
  tenant.addEventListener("input", changed);
  topic.addEventListener("input", changed);
  filter.addEventListener("input", filterItems);
  clear.addEventListener("click", () => {
    items.splice(0).forEach((item) => item.element.remove());
    filterItems();
  });
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Resume" : "Pause";
    pause.setAttribute("aria-pressed", String(isPaused));
    sampled.hidden = true;
    describe();
    asking.now();
  });
  describe();
  filterItems();
  suggestTenants(names, tenant, restart);
  const asking = repeat(ask, () => (isBusy ? ASK_EVERY_BUSY : ASK_EVERY));
  return asking.stop;
}

/** Offers the names of tenants, and takes the busiest if there is none yet. */
async function suggestTenants(names, tenant, taken) {
  const { tenants } = await call("tenants").catch(() => ({ tenants: [] }));
  names.append(...tenants.map((it) => make("option", { value: it.tenant })));
  if (!tenant.value && tenants.length > 0) {
    tenant.value = tenants[0].tenant;
    taken();
  }
}

function showSampling(element, { events, skipped }, topic) {
  element.hidden = skipped === 0;
  if (skipped > 0) {
    element.textContent = topic
      ? `Too many events pass to look at each: ${count(skipped)} of the tenant were not searched for the topic just now.`
      : `More events pass than can be shown: these are the newest ${count(events.length)} of ${count(events.length + skipped)}.`;
  }
}

/** Returns the line of an event, which opens to show it whole. */
function eventItem(tenant, event, app) {
  const json = event.event ? JSON.stringify(event.event) : "";
  const preview = event.event ? JSON.stringify(payloadOf(event.event)) : "large: open it to load it";
  const summary = make("summary", null,
    make("span.when", null, clock(event.at_ms)),
    data("span.what", event.payload ?? "unknown"),
    data("span.preview", cut(preview)),
    make("span.size", null, bytes(event.bytes)));
  const element = make("details.event", null, summary);
  // Made when it is opened, since most events never are.
  element.addEventListener("toggle", () => openItem(element, tenant, event, app), { once: true });
  return { element, text: `${json} ${event.topics.join(" ")} ${event.payload}`.toLowerCase() };
}

/** Returns the value of the payload: the only member that is an object and not the position. */
function payloadOf(envelope) {
  const members = Object.entries(envelope).filter(([name, value]) => name !== "position" && value && typeof value === "object" && !Array.isArray(value));
  return members[0]?.[1] ?? envelope;
}

function cut(text) {
  return text.length > PREVIEW_MAX ? `${text.slice(0, PREVIEW_MAX)}…` : text;
}

async function openItem(element, tenant, event, app) {
  const position = `${event.position.epoch}:${event.position.offset}`;
  const body = make("div.event-body", null,
    make("div.topics", null, ...event.topics.map((topic) => data("span.chip", topic))),
    make("p.quiet", null, `Position ${position}, ${bytes(event.bytes)}`));
  const problem = make("div", null);
  element.append(body);
  body.append(problem);
  try {
    const whole = event.event ?? await call(tenantPath(tenant, `/events/${position}`));
    body.append(data("pre", JSON.stringify(whole, null, 2), { tabindex: 0 }));
  } catch (error) {
    app.failed(problem, error);
  }
}
