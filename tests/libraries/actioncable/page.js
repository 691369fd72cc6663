// A page that is subscribed to a channel.
import { ConnectionMonitor, adapters, createConsumer } from '@rails/actioncable';

import { report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';

// The library watches whether its page is shown.
const shown = new EventTarget();
globalThis.addEventListener = shown.addEventListener.bind(shown);
globalThis.removeEventListener = shown.removeEventListener.bind(shown);
globalThis.document = { visibilityState: 'visible' };
adapters.WebSocket = WebSocket;
// Seconds without a message from the app, 6 of its own accord, after which it looks for another connection.
ConnectionMonitor.staleThreshold = 2;

const subscription = createConsumer(url).subscriptions.create('EchoChannel', {
  connected: () => report('open', {}),
  received: ({ text }) => report('message', { data: text }),
  disconnected: (fields) => report('close', fields),
});

takeOrders({ send: (text) => subscription.send({ text }) });
