// How long a pair was looked at: the time on the screen, without pauses and without other tabs.

export class Stopwatch {
  #gathered = 0; // milliseconds
  #since = null;

  restart() {
    this.#gathered = 0;
    this.#since = document.hidden ? null : performance.now();
  }

  start() {
    this.#since ??= performance.now();
  }

  stop() {
    if (this.#since !== null) this.#gathered += performance.now() - this.#since;
    this.#since = null;
  }

  get seconds() {
    const running = this.#since === null ? 0 : performance.now() - this.#since;
    return Math.round((this.#gathered + running) / 100) / 10;
  }
}
