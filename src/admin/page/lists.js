// Keeps the sessions true to the lists of the admin listener. Comings, goings and misses are told by events; what else
// changes (round trips, bytes, idle times) is read page by page, a few pages a second at most, however many there are.

const PAGE = 500;
// Of the closed ones no more is read than that: this is a page to look at, not an archive.
const CLOSED_PAGES = 10;
// Between two pages, and between two readings of the whole list. In milliseconds.
const PAUSE = 300;
const REST = 1500;

export class Lists {
  #api;
  #sessions;
  #changed;
  #urgent = true;
  #reading = false;
  #wake = () => {};

  // `changed(now)` is called after each page; `now` is the proxy's time.
  constructor(api, sessions, changed) {
    this.#api = api;
    this.#sessions = sessions;
    this.#changed = changed;
  }

  // What is known may be wrong: reads everything anew, without pauses.
  resync() {
    this.#urgent = true;
    this.#wake();
  }

  // Nothing can be read until the next `resync`.
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
          // The stream of events comes back, and asks for everything anew.
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
