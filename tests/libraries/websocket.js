// WebSocket as in a browser: the socket runs on a thread of its own, beside the page's. A hung page still answers pings
// and Closes, and gets all events once it runs again. It has the subset of the WHATWG's interface that the libraries
// use.
import { Worker } from 'node:worker_threads';

const CONNECTING = 0;
const OPEN = 1;
const CLOSING = 2;
const CLOSED = 3;

export class WebSocket extends EventTarget {
  static CONNECTING = CONNECTING;
  static OPEN = OPEN;
  static CLOSING = CLOSING;
  static CLOSED = CLOSED;
  CONNECTING = CONNECTING;
  OPEN = OPEN;
  CLOSING = CLOSING;
  CLOSED = CLOSED;

  url;
  protocol = '';
  extensions = '';
  readyState = CONNECTING;
  bufferedAmount = 0;
  binaryType = 'blob';
  #network;

  constructor(url, protocols = []) {
    super();
    this.url = String(url);
    this.#network = new Worker(new URL('network.js', import.meta.url), { workerData: { url: this.url, protocols } });
    this.#network.on('message', (heard) => this.#handle(heard));
  }

  send(data) {
    if (this.readyState === CONNECTING) throw new DOMException('still connecting', 'InvalidStateError');
    this.#network.postMessage({ order: 'send', data });
  }

  close(code, reason) {
    if (this.readyState >= CLOSING) return;
    this.readyState = CLOSING;
    this.#network.postMessage({ order: 'close', code, reason });
  }

  // Handlers like `onopen` are called before the listeners.
  dispatchEvent(event) {
    this[`on${event.type}`]?.(event);
    return super.dispatchEvent(event);
  }

  #handle({ type, data, ...fields }) {
    if (type === 'open') Object.assign(this, fields, { readyState: OPEN });
    if (type === 'message') fields.data = this.#received(data);
    if (type === 'close') this.readyState = CLOSED;
    this.dispatchEvent(Object.assign(new Event(type), fields));
  }

  #received(data) {
    if (typeof data === 'string' || this.binaryType === 'arraybuffer') return data;
    return new Blob([data]);
  }
}
