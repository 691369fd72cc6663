// The client of the admin listener: single requests, and the stream of events.

const TOKEN = 'pulsegate.token';
// In milliseconds. Statistics arrive every second, so a longer silence means that the connection is lost.
const SILENCE = 8000;
const RETRIES = [500, 1000, 2000, 4000, 8000];

// An error response; `code` is the error code in its body.
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// Sends requests, with the token if there is one.
export class Api {
  #askToken;
  #asked = null;

  // `askToken(again)` asks the user for the token and resolves to it.
  constructor(askToken) {
    this.#askToken = askToken;
  }

  get(path) {
    return this.json('GET', path);
  }

  post(path, body) {
    return this.json('POST', path, body);
  }

  async json(method, path, body) {
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json' };
    const response = await this.request(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    return response.json();
  }

  async request(path, options = {}) {
    for (let again = false; ; again = true) {
      const token = sessionStorage.getItem(TOKEN);
      const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
      const response = await fetch(path, { cache: 'no-store', ...options, headers });
      if (response.ok) return response;
      if (response.status !== 401) throw await refusal(response);
      await this.#newToken(token, again || token !== null);
    }
  }

  // Asks for the token once for all concurrent requests. Does not ask if another request has replaced the token tried.
  async #newToken(tried, again) {
    if (sessionStorage.getItem(TOKEN) !== tried) return;
    this.#asked ??= this.#askToken(again).finally(() => (this.#asked = null));
    sessionStorage.setItem(TOKEN, await this.#asked);
  }
}

async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  return new Refused(response.status, error?.code ?? '', error?.message ?? `The proxy answered ${response.status}.`);
}

// The stream of events, which reconnects by itself. EventSource cannot send the token.
export class Feed {
  #api;
  #handlers;
  #lastId = null;
  #wake = () => {};

  // `handlers` has `connecting()` (awaited before each attempt), `connected(again)`, `lost(milliseconds until the next
  // attempt)` and `event(name, data)`.
  constructor(api, handlers) {
    this.#api = api;
    this.#handlers = handlers;
  }

  // Reconnects at once.
  retry() {
    this.#wake();
  }

  // Forgets the last event id: another process does not have the events missed.
  forget() {
    this.#lastId = null;
  }

  async run() {
    for (let failures = 0, again = false; ; failures += 1) {
      try {
        await this.#handlers.connecting();
        await this.#listen(() => {
          this.#handlers.connected(again);
          again = true;
          failures = -1;
        });
      } catch (error) {
        console.debug('the stream of events broke:', error);
      }
      const pause = RETRIES[Math.min(Math.max(failures, 0), RETRIES.length - 1)];
      this.#handlers.lost(pause);
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, pause);
      });
    }
  }

  async #listen(connected) {
    const silence = new AbortController();
    const headers = { Accept: 'text/event-stream', ...(this.#lastId && { 'Last-Event-ID': this.#lastId }) };
    const response = await this.#api.request('/v1/events', { headers, signal: silence.signal });
    connected();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new Parser((name, data, id) => {
      if (id !== null) this.#lastId = id;
      this.#handlers.event(name, JSON.parse(data));
    });
    for (;;) {
      const timer = setTimeout(() => silence.abort(), SILENCE);
      try {
        const { value, done } = await reader.read();
        if (done) return;
        parser.push(value);
      } finally {
        clearTimeout(timer);
      }
    }
  }
}

// An incremental parser of server-sent events (HTML, section 9.2.6).
class Parser {
  #emit;
  #rest = '';
  #name = '';
  #data = [];
  #id = null;

  constructor(emit) {
    this.#emit = emit;
  }

  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === '') {
      if (this.#data.length) this.#emit(this.#name || 'message', this.#data.join('\n'), this.#id);
      [this.#name, this.#data, this.#id] = ['', [], null];
      return;
    }
    const [, field, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
    if (field === 'event') this.#name = value;
    if (field === 'data') this.#data.push(value);
    if (field === 'id') this.#id = value;
  }
}
