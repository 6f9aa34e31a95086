// Builds elements. Text is only ever set as text, never as markup.

import { pieces } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * Returns a new element.
 * @param {string} name its name and classes, such as "p.quiet.number"
 * @param {Record<string, unknown> | null} [attributes] attributes; functions are listeners, false
 *   and null leave the attribute out
 * @param {...(Node | string | number | null | undefined)} children nodes and text of the page itself
 */
export function make(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) {
    element.className = classes.join(" ");
  }
  setAttributes(element, attributes);
  element.append(...children.filter((it) => it !== null && it !== undefined).map(toNode));
  return element;
}

/** Returns a new element of SVG. */
export function makeSvg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  setAttributes(element, attributes);
  element.append(...children.map(toNode));
  return element;
}

function setAttributes(element, attributes) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") {
      element.addEventListener(key, value);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
}

function toNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/**
 * Returns an element with text that comes from events, clients or backends: characters that would
 * act on the text around them, or that nobody sees, are shown as escapes.
 */
export function data(name, text, attributes) {
  const element = make(`${name}.data`, attributes);
  for (const piece of pieces(String(text))) {
    element.append(piece.escape ? make("span.escape", null, piece.text) : piece.text);
  }
  return element;
}

/** Returns a labelled field of a form. */
export function field(label, input, className = "field") {
  return make(`label.${className.replaceAll(" ", ".")}`, null, make("span", null, label), input);
}

/** Returns a table with a message in place of rows if there are none. */
export function table(columns, rows, none) {
  const heads = columns.map(({ title, type }) => make(`th${type ? `.${type}` : ""}`, { scope: "col" }, title));
  if (rows.length === 0) {
    return make("p.none", null, none);
  }
  const body = rows.map((cells) => make("tr", null, ...cells.map((cell, index) => {
    const type = columns[index]?.type;
    return make(`td${type ? `.${type}` : ""}`, null, cell);
  })));
  return make("div.scroll", null,
    make("table", null, make("thead", null, make("tr", null, ...heads)), make("tbody", null, ...body)));
}

/** Shows a message in an element: an error, or nothing. */
export function showError(element, error) {
  element.replaceChildren();
  if (error) {
    element.append(data("p.notice.bad", error instanceof Error ? error.message : error, { role: "alert" }));
  }
}

/** Returns a function that calls `action` once the calls of it have stopped for so many ms. */
export function settled(action, ms = 250) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, ms);
  };
}

/** Returns a button that copies a text. */
export function copyButton(text) {
  const button = make("button", {
    type: "button",
    click: async () => {
      try {
        await navigator.clipboard.writeText(text());
        button.textContent = "Copied";
      } catch {
        button.textContent = "Cannot copy: select it";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    },
  }, "Copy");
  return button;
}
