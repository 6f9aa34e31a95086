// Posts the events of the outbox to the relay, one by one in the order of their
// transactions. An event stays in the outbox until the relay has confirmed it, so neither a
// crash of the backend nor an outage of the relay loses one.

import { setTimeout as sleep } from "node:timers/promises";
import { PublishError } from "@sidewire/client/publisher";

const PAUSE_MS = 500;

// The statuses of an event that can never be stored: it is invalid, its id was given to
// another event, or it is too large.
const REFUSED_FOR_GOOD = [400, 409, 413];

/** The worker of an outbox. */
export class Outbox {
  #store;
  #publisher;
  #tenant;
  #stopping = new AbortController();
  #wake = () => {};
  #isFailing = false;

  /**
   * @param store The {@link Store} that has the events.
   * @param publisher A `Publisher` of `@sidewire/client/publisher`.
   * @param tenant The tenant that the events are for.
   */
  constructor(store, publisher, tenant) {
    this.#store = store;
    this.#publisher = publisher;
    this.#tenant = tenant;
  }

  /** Tells the worker that there are new events. */
  wake() {
    this.#wake();
  }

  /** Ends `run`. An event whose post is under way stays in the outbox. */
  stop() {
    this.#stopping.abort();
    this.#wake();
  }

  /** Posts events until it is stopped. */
  async run() {
    while (!this.#stopping.signal.aborted) {
      const event = this.#store.nextEvent();
      if (event === undefined) {
        await new Promise((resolve) => {
          this.#wake = resolve;
        });
      } else {
        await this.#post(event);
      }
    }
  }

  async #post({ number, messageId, envelope }) {
    const { signal } = this.#stopping;
    try {
      // Under the same id each time, so that the relay stores the event once, even if an
      // earlier try was stored and only its answer was lost.
      const options = { messageId, signal };
      const receipt = await this.#publisher.publish(this.#tenant, JSON.parse(envelope), options);
      this.#store.markSent(number, receipt.position);
      if (this.#isFailing) console.log("outbox: the relay takes events again");
      this.#isFailing = false;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof PublishError && REFUSED_FOR_GOOD.includes(error.status)) {
        // The others are not to wait for an event that can never be stored.
        this.#store.markRefused(number, error.message);
        console.error(`outbox: event ${messageId} is set aside, it is refused: ${error.message}`);
        return;
      }
      if (!this.#isFailing) {
        console.error(`outbox: the relay does not take events, trying again: ${error.message}`);
      }
      this.#isFailing = true;
      await sleep(PAUSE_MS, undefined, { signal }).catch(() => {});
    }
  }
}
