// A page with a subscription to a channel.
import { adapters, createConsumer } from '@rails/actioncable';

import { report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';

// The library observes the visibility of its page.
const shown = new EventTarget();
globalThis.addEventListener = shown.addEventListener.bind(shown);
globalThis.removeEventListener = shown.removeEventListener.bind(shown);
globalThis.document = { visibilityState: 'visible' };

// The library does not expose the app's pings.
adapters.WebSocket = class extends WebSocket {
  constructor(...how) {
    super(...how);
    this.addEventListener('message', ({ data }) => JSON.parse(data).type === 'ping' && report('beat', {}));
  }
};

const subscription = createConsumer(url).subscriptions.create('EchoChannel', {
  connected: () => report('open', {}),
  received: ({ text }) => report('message', { data: text }),
  disconnected: (fields) => report('close', fields),
});

takeOrders({ send: (text) => subscription.send({ text }) });
