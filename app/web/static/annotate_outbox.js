// Answers on their way to the service. They are kept in this browser until they have arrived, so that neither a
// lost network nor a reload loses one: an assignment's id and what the rater answered, no text of a pair. Sending
// one again is harmless, the service takes the same answer once; of the browser's tabs one sends at a time, so
// that nothing that was taken back arrives once more.

import { Refused, post } from "./annotate_service.js";

export class Outbox {
  constructor(rater) {
    this.prefix = `rating-answer:${rater}:`;
  }

  /** Keys of the answers that wait, oldest first. */
  get keys() {
    return Object.keys(localStorage).filter((key) => key.startsWith(this.prefix)).sort();
  }

  get size() {
    return this.keys.length;
  }

  /** Whether the answer to an assignment waits. */
  holds(id) {
    return this.keys.some((key) => this.#read(key)?.id === id);
  }

  /** Keep an answer: `path` is what follows the assignment's address. */
  add(id, path, body) {
    const later = Math.max(Date.now(), this.#time(this.keys.at(-1)) + 1); // clocks are set back at times
    this.#write(`${this.prefix}${String(later).padStart(15, "0")}`, { id, path, body, tried: false });
  }

  /** Forget the newest answer and return its entry; null if a request was made for it, or it is not `wanted`. */
  takeBack(wanted) {
    const key = this.keys.at(-1);
    const entry = key === undefined ? null : this.#read(key);
    if (entry === null || entry.tried || !wanted(entry)) return null;
    localStorage.removeItem(key);
    return entry;
  }

  /**
   * Send everything that waits, in order; `arrived(answer, id)` or `refused(problem, id)` is called for each. Rejects where
   * the network or the service fails, and what was not sent stays.
   */
  send(arrived, refused) {
    const work = () => this.#send(arrived, refused);
    // Plain http on another host has no locks: then two tabs may send the same answer, which counts once.
    return navigator.locks ? navigator.locks.request(this.prefix, work) : work();
  }

  async #send(arrived, refused) {
    for (let key = this.keys[0]; key !== undefined; key = this.keys[0]) {
      const entry = this.#read(key);
      this.#write(key, { ...entry, tried: true });
      let answer;
      try {
        answer = await post(`/assignments/${entry.id}${entry.path}`, entry.body);
      } catch (problem) {
        if (!(problem instanceof Refused) || problem.passes) throw problem;
        localStorage.removeItem(key);
        refused(problem, entry.id);
        continue;
      }
      localStorage.removeItem(key);
      arrived(answer, entry.id);
    }
  }

  #time(key) {
    return key === undefined ? 0 : Number(key.slice(this.prefix.length));
  }

  #read(key) {
    return JSON.parse(localStorage.getItem(key));
  }

  #write(key, entry) {
    localStorage.setItem(key, JSON.stringify(entry));
  }
}
