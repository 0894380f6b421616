// The pairs that this page holds: the one on the screen and a few to come, in memory alone. The service decides
// their order and counts; another tab or device holds the same ones.

import { Refused, get, post } from "./annotate_service.js";

const HELD = 5; // as many as the service lets a rater hold open

export class Pairs {
  #held = [];
  #ended = false; // nothing follows the last one held
  finished = false; // every pair is answered
  done = 0; // by the last answer of the service
  total = 0;

  /** `texts`: "plain", or "markdown", which the service renders. */
  constructor(study, texts) {
    this.next = `/studies/${study}/assignments:next`;
    this.texts = texts;
  }

  /** The pair on the screen, or null. */
  get shown() {
    return this.#held[0] ?? null;
  }

  /** Pairs held, the one on the screen included. */
  get size() {
    return this.#held.length;
  }

  /** Drop the pair on the screen, which was answered, and return it. */
  leave() {
    return this.#held.shift();
  }

  /** Hold a pair as the first whose answer was not sent. */
  putBack(pair) {
    this.finished = false;
    this.#held = [pair, ...this.#held.filter((one) => one.id !== pair.id)];
  }

  /** Hold a pair as the first that the service has opened again. */
  async reopen(pair) {
    this.putBack(await this.#render(pair));
    this.#count(pair);
  }

  /** Ask for the first open pair; where it is not the one on the screen, hold it instead of what was held. */
  async refresh(stillValid) {
    const pair = await this.#fetch(this.next);
    if (!stillValid()) return;
    this.#count(pair);
    this.finished = pair === null;
    if (pair !== null && pair.id === this.shown?.id) return;
    this.#held = pair === null ? [] : [pair];
    this.#ended = false;
  }

  /** Fetch one more pair to come. False where enough are held, or there are no more. */
  async readAhead() {
    if (this.#ended || this.#held.length === 0 || this.#held.length >= HELD) return false;
    const last = this.#held.at(-1).id;
    let pair;
    try {
      pair = await this.#fetch(`${this.next}?after=${encodeURIComponent(last)}`);
    } catch (problem) {
      if (problem instanceof Refused && problem.code === "pairs_open") return false;
      throw problem;
    }
    this.#ended = pair === null;
    this.#count(pair);
    if (pair !== null && [undefined, last].includes(this.#held.at(-1)?.id)) this.#held.push(pair);
    return true;
  }

  async #fetch(path) {
    return this.#render(await post(path));
  }

  async #render(pair) {
    if (pair === null || this.texts === "plain") return pair;
    return { ...pair, html: await get(`/annotate/pairs/${pair.id}`) };
  }

  #count(pair) {
    if (pair !== null) ({ done: this.done, total: this.total } = pair);
  }
}
