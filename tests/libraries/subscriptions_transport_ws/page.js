// A page with subscriptions-transport-ws that reconnects.
import transport from 'subscriptions-transport-ws';

import { report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';
import { query } from '../graphql_ws/schema.js';

// The library does not expose the server's heartbeat.
class Watched extends WebSocket {
  dispatchEvent(event) {
    if (event.type === 'message' && JSON.parse(event.data).type === 'ka') report('beat', {});
    return super.dispatchEvent(event);
  }
}

// The default connection timeout is one second, which a busy machine may exceed to start the other end.
const client = new transport.SubscriptionClient(url, { reconnect: true, minTimeout: 10_000 }, Watched);
client.onConnected(() => report('open', {}));
client.onReconnected(() => report('open', {}));
client.onDisconnected(() => report('close', {}));
client.onError(({ message }) => report('error', { message }));

takeOrders({
  send: (text) =>
    client.request({ query, variables: { text } }).subscribe({
      next: ({ data }) => report('message', { data: data.echo }),
      error: (error) => report('error', { message: String(error) }),
    }),
});
