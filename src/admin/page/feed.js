// What the page hears from the admin listener: single answers, and the stream of events.

const TOKEN = 'pulsegate.token';
// Statistics come every second, so silence means that the other end has gone.
const SILENCE = 8000;
const RETRIES = [500, 1000, 2000, 4000, 8000];

// An answer that is no success; `code` is the listener's own word for it.
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// Requests, with the token if there is one.
export class Api {
  #askToken;
  #asked = null;

  // `askToken(again)` asks the person for the token and resolves to it.
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

  // Whoever comes first asks; the others wait for the same answer. A token that somebody else brought is tried first.
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

// The stream of events, which comes back by itself. EventSource could not carry the token.
export class Feed {
  #api;
  #heard;
  #lastId = null;
  #wake = () => {};

  // `heard` has `connecting()` (awaited before anything is asked), `connected(again)`, `lost(milliseconds until the next
  // attempt)` and `event(name, data)`.
  constructor(api, heard) {
    this.#api = api;
    this.#heard = heard;
  }

  // Tries again now.
  retry() {
    this.#wake();
  }

  // Events of another process are not those that were missed.
  forget() {
    this.#lastId = null;
  }

  async run() {
    for (let failures = 0, again = false; ; failures += 1) {
      try {
        await this.#heard.connecting();
        await this.#listen(() => {
          this.#heard.connected(again);
          again = true;
          failures = -1;
        });
      } catch (error) {
        console.debug('the stream of events broke:', error);
      }
      const pause = RETRIES[Math.min(Math.max(failures, 0), RETRIES.length - 1)];
      this.#heard.lost(pause);
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
      this.#heard.event(name, JSON.parse(data));
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

// The format of server-sent events (HTML, section 9.2.6).
class Parser {
  #tell;
  #rest = '';
  #name = '';
  #data = [];
  #id = null;

  constructor(tell) {
    this.#tell = tell;
  }

  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === '') {
      if (this.#data.length) this.#tell(this.#name || 'message', this.#data.join('\n'), this.#id);
      [this.#name, this.#data, this.#id] = ['', [], null];
      return;
    }
    const [, field, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
    if (field === 'event') this.#name = value;
    if (field === 'data') this.#data.push(value);
    if (field === 'id') this.#id = value;
  }
}
