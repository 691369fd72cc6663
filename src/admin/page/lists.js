// Keeps the sessions in step with the lists of the admin listener. Opens, closes and misses arrive as events; other
// values (round trips, bytes, idle times) are fetched page by page, a few pages a second at most, for any number of
// sessions.

const PAGE = 500;
// The maximum number of pages fetched of the closed sessions.
const CLOSED_PAGES = 10;
// The pauses between two pages, and between two passes over the whole list. In milliseconds.
const PAUSE = 300;
const REST = 1500;

export class Lists {
  #api;
  #sessions;
  #changed;
  #urgent = true;
  #reading = false;
  #wake = () => {};

  // `changed(now)` is called after each page; `now` is the proxy's time in unix seconds.
  constructor(api, sessions, changed) {
    this.#api = api;
    this.#sessions = sessions;
    this.#changed = changed;
  }

  // Fetches everything again, without pauses, because events may have been missed.
  resync() {
    this.#urgent = true;
    this.#wake();
  }

  // Stops fetching until the next `resync`.
  stop() {
    this.#reading = false;
  }

  async run() {
    for (;;) {
      if (this.#urgent || (this.#reading && !document.hidden)) {
        const urgent = this.#urgent;
        this.#urgent = false;
        try {
          if (urgent) await this.#closed();
          await this.#open(urgent);
          this.#reading = true;
        } catch (error) {
          // The stream of events reconnects and then calls `resync`.
          console.debug('the list could not be read:', error);
          this.#reading = false;
        }
      }
      await this.#pause(REST);
    }
  }

  async #open(urgent) {
    let began = null;
    for await (const { now, connections, next_cursor: more } of this.#pages('state=open')) {
      began ??= now;
      for (const conn of connections) this.#sessions.tell(conn, now);
      this.#changed(now);
      if (more && !urgent && !this.#urgent) await this.#pause(PAUSE);
    }
    if (this.#sessions.prune(began)) await this.#closed();
  }

  async #closed() {
    let pages = 0;
    for await (const { now, connections } of this.#pages('state=closed&sort=-opened')) {
      this.#sessions.fill(connections);
      this.#changed(now);
      pages += 1;
      if (pages === CLOSED_PAGES) return;
    }
  }

  async *#pages(query) {
    for (let cursor = null; ; ) {
      const from = cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`;
      const page = await this.#api.get(`/v1/connections?${query}&limit=${PAGE}${from}`);
      yield page;
      cursor = page.next_cursor ?? null;
      if (cursor === null) return;
    }
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, milliseconds);
    });
  }
}
