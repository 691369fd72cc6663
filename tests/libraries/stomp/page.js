// A page that subscribes to a queue and sends to it.
import '../browser.js';
import { report, takeOrders, url } from '../page.js';

import { Client } from '@stomp/stompjs';

const client = new Client({
  brokerURL: url,
  // Longer than the app's interval, so that the longer of the two is the one to agree on.
  heartbeatOutgoing: 600,
  heartbeatIncoming: 3_000,
  reconnectDelay: 500,
});
client.onConnect = () => {
  client.subscribe('/queue/echo', ({ body }) => report('message', { data: body }));
  report('open', {});
};
client.onHeartbeatReceived = () => report('beat', {});
client.onWebSocketClose = ({ code, reason }) => report('close', { code, reason });

takeOrders({ send: (text) => client.publish({ destination: '/queue/echo', body: text }) });

client.activate();
