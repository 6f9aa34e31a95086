// A tab of the board in a browser, in the words of a user.

import assert from "node:assert/strict";

/** A page that shows the board to a user. */
export class Tab {
  #page;
  #url;
  /** How often the page was loaded, and how often it has asked for the board. */
  navigations = 0;
  loads = 0;
  /** The frames that the relay has sent, on all connections of the page. */
  #frames = [];

  /** Opens the board as a user, in a context of its own. */
  static async open(browser, url, user, { patience, onError }) {
    const context = await browser.newContext();
    context.setDefaultTimeout(patience);
    const tab = new Tab(await context.newPage(), `${url}/?user=${user}`);
    tab.#page.on("pageerror", onError);
    await tab.#page.goto(tab.#url);
    await tab.isLive();
    return tab;
  }

  constructor(page, url) {
    this.#page = page;
    this.#url = url;
    page.on("framenavigated", () => {
      this.navigations += 1;
    });
    page.on("request", (request) => {
      if (/\/boards\/demo$/.test(request.url())) this.loads += 1;
    });
    page.on("websocket", (socket) => {
      socket.on("framereceived", ({ payload }) => this.#frames.push(String(payload)));
    });
  }

  /** The page itself. */
  get page() {
    return this.#page;
  }

  /** Closes the tab and its context. */
  async close() {
    await this.#page.context().close();
  }

  // What the user does.

  async create(column, title) {
    const form = this.#page.locator(`[data-column="${column}"] .new`);
    await form.locator("input").fill(title);
    await form.locator("button").click();
    await this.sees(column, title);
  }

  /** Drags a card to the end of a column with the mouse. */
  async drag(title, column) {
    const from = await this.#card(title).locator(".grip").boundingBox();
    const to = await this.#page.locator(`[data-column="${column}"] .new`).boundingBox();
    const { mouse } = this.#page;
    await mouse.move(from.x + from.width / 2, from.y + from.height / 2);
    await mouse.down();
    await mouse.move(to.x + to.width / 2, to.y + to.height / 2, { steps: 5 });
    await mouse.up();
  }

  /** Presses a key on the handle of a card. */
  async press(title, key) {
    await this.#card(title).locator(".grip").press(key);
  }

  /** Begins to write a title, without sending it. */
  async types(title, text) {
    await this.#card(title).locator(".title").click();
    await this.#page.locator(".editor:visible").pressSequentially(text);
  }

  /** Stops writing, and gives up what was written. */
  async stopsTyping() {
    await this.#page.locator(".editor:visible").press("Escape");
  }

  async goesOffline() {
    await this.#page.context().setOffline(true);
  }

  async goesOnline() {
    await this.#page.context().setOffline(false);
  }

  async delete(title) {
    await this.#card(title).locator(".delete").click();
  }

  // What the user sees.

  /** Waits until a card is in a column. */
  async sees(column, title) {
    await this.#card(title, `[data-column="${column}"]`).waitFor();
  }

  async doesNotSee(title) {
    await this.#card(title).waitFor({ state: "detached" });
  }

  async seesTyping(title, text) {
    await this.#card(title).locator(".typing", { hasText: text }).waitFor();
  }

  async seesNobodyTyping(title) {
    await this.#card(title).locator(".typing").waitFor({ state: "hidden" });
  }

  async seesPerson(user) {
    await this.#page.locator(`.person[data-user="${user}"] .dot`).waitFor();
  }

  async seesNoPerson(user) {
    await this.#page.locator(`.person[data-user="${user}"]`).waitFor({ state: "detached" });
  }

  async seesNotice(text) {
    await this.#page.locator("#notice", { hasText: text }).waitFor();
  }

  async isLive() {
    await this.#page.locator('#connection[data-state="open"]').waitFor();
  }

  async isDisconnected() {
    await this.#page.locator('#connection:not([data-state="open"])').waitFor();
  }

  /** Returns the titles of a column, in their order. */
  titles(column) {
    return this.#page.locator(`[data-column="${column}"] .card .title`).allTextContents();
  }

  /** Returns how often the relay has sent the page a state of a card with this title. */
  received(title) {
    return this.#frames.filter((frame) => JSON.parse(frame).cardSaved?.card.title === title).length;
  }

  /** Fails if the page was loaded again since it was opened. */
  async assertNeverReloaded() {
    assert.equal(this.navigations, 1, "the page was loaded again");
    const type = await this.#page.evaluate(
      () => performance.getEntriesByType("navigation")[0].type,
    );
    assert.equal(type, "navigate");
  }

  #card(title, within = "") {
    const shown = this.#page.getByText(title, { exact: true });
    return this.#page.locator(`${within} .card`).filter({ has: shown });
  }
}
