// The frame of the page: the key, the views and their keys, and the samples of the overview.

import { ApiError, call, forgetKey, hasKey, repeat, takeKeyFromUrl, useKey } from "./api.js";
import { field, make, showError } from "./dom.js";
import * as connect from "./connect.js";
import * as explain from "./explain.js";
import * as live from "./live.js";
import * as overview from "./overview.js";
import * as publish from "./publish.js";
import * as tenants from "./tenants.js";

const SAMPLE_EVERY = 1000;

const VIEWS = { overview, tenants, live, explain };
const DEV_VIEWS = { publish, connect };

const view = document.getElementById("view");
const nav = document.getElementById("nav");
const footer = document.getElementById("footer");
const status = document.getElementById("status");
const statusText = document.getElementById("status-text");

/** What the views share. */
const app = {
  session: null,
  history: new overview.History(),
  listeners: new Set(),

  /** Calls `action` after each sample. Returns a function that ends this. */
  onSample(action) {
    this.listeners.add(action);
    return () => this.listeners.delete(action);
  },

  /** Shows an error; one that the key is wrong asks for it again. */
  failed(element, error) {
    if (!asksForKey(error) && error?.name !== "AbortError") {
      showError(element, error);
    }
  },
};

let leave = () => {};
let stopSampling = () => {};

/** The views of this relay: only `sidewire dev` lets the page publish. */
function views() {
  return app.session?.dev ? { ...VIEWS, ...DEV_VIEWS } : VIEWS;
}

/** Returns the name of the view in the URL, the rest of its path and its parameters. */
function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return {
    name: Object.hasOwn(views(), name) ? name : "overview",
    rest: rest.map(decodeURIComponent).join("/"),
    query: new URLSearchParams(query),
  };
}

function show() {
  if (!app.session) {
    return;
  }
  leave();
  const { name, rest, query } = route();
  const all = views();
  nav.replaceChildren(...Object.entries(all).map(([key, module]) =>
    make("a", { href: `#/${key}`, "aria-current": key === name ? "page" : null }, module.title)));
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  document.title = `${all[name].title} – Sidewire inspector`;
  view.replaceChildren();
  leave = all[name].mount(view, { app, rest, query }) ?? (() => {});
}

function setStatus(state, text) {
  status.className = `status ${state}`;
  if (statusText.textContent !== text) {
    statusText.textContent = text;
  }
}

async function takeSample(signal) {
  try {
    const sample = await call("overview", { signal });
    app.history.add(sample);
    setStatus("live", sample.draining ? "Draining" : "Connected");
    app.listeners.forEach((listener) => listener());
  } catch (error) {
    if (!asksForKey(error) && error.name !== "AbortError") {
      setStatus("lost", "No answer");
    }
  }
}

/** Asks for the key again if an error says that it is wrong. Returns true if so. */
function asksForKey(error) {
  const isWrong = error instanceof ApiError && error.status === 401;
  if (isWrong) {
    signIn("This is not the inspector's key. It may be that of an earlier start of the relay.");
  }
  return isWrong;
}

/** Asks for the key. */
function signIn(reason) {
  leave();
  leave = () => {};
  stopSampling();
  forgetKey();
  app.session = null;
  nav.replaceChildren();
  footer.replaceChildren();
  setStatus("", "Locked");
  document.title = "Sidewire inspector";
  const key = make("input", { type: "password", autocomplete: "current-password", required: true, name: "key" });
  const problem = make("div", null);
  const form = make("form.card.signin", {
    submit: (event) => {
      event.preventDefault();
      useKey(key.value);
      start();
    },
  }, make("div.stack", null,
    make("h1", null, "The key of the inspector"),
    make("p.quiet", null, "It is in the file that ops.inspector_key_file names. ",
      make("code", null, "sidewire dev"), " prints a URL with it."),
    problem, field("Key", key), make("div.actions", null, make("button.primary", { type: "submit" }, "Open"))));
  showError(problem, reason);
  view.replaceChildren(form);
  key.focus();
}

async function start() {
  if (!hasKey()) {
    signIn(null);
    return;
  }
  try {
    app.session = await call("session");
  } catch (error) {
    if (!asksForKey(error)) {
      setStatus("lost", "No answer");
      showError(view, error);
      setTimeout(start, 2000);
    }
    return;
  }
  const names = Object.values(views()).map((module) => module.title.toLowerCase());
  footer.replaceChildren(
    make("span.keys", null, make("kbd", null, "1"), " to ", make("kbd", null, String(names.length)),
      " change the view, ", make("kbd", null, "/"), " searches, ", make("kbd", null, "p"), " pauses the live events"),
    make("span", null, `Sidewire ${app.session.version}, schema ${app.session.schema.slice(0, 12)}`));
  // A key that is pasted into the URL of an open tab begins anew.
  stopSampling();
  stopSampling = repeat(takeSample, () => SAMPLE_EVERY).stop;
  show();
}

/** Handles a key that is not meant for a field. */
function pressed(event) {
  const isTyping = event.target.closest?.("input, textarea, select");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !app.session) {
    return;
  }
  const name = Object.keys(views())[Number(event.key) - 1];
  if (name) {
    location.hash = `#/${name}`;
    view.focus({ preventScroll: true });
  } else if (event.key === "/") {
    const search = view.querySelector("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select?.();
    }
  } else if (event.key === "p") {
    view.querySelector("[data-pause]")?.click();
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  view.focus();
});
window.addEventListener("hashchange", () => {
  if (location.hash.startsWith("#key=")) {
    takeKeyFromUrl();
    start();
  } else {
    show();
  }
});
window.addEventListener("keydown", pressed);
takeKeyFromUrl();
start();
