// A page that joins a channel, and rejoins it after each reconnection of the socket.
import { Socket } from 'phoenix';

import { report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';

const socket = new Socket(url, { transport: WebSocket, heartbeatIntervalMs: 1_500 });
socket.onClose(({ code, reason }) => report('close', { code, reason }));
socket.onMessage(({ topic, event }) => topic === 'phoenix' && event === 'phx_reply' && report('beat', {}));
socket.connect();

const channel = socket.channel('room:echo');
// Called for every join, not only for the first.
channel.join().receive('ok', () => report('open', {}));

takeOrders({
  send: (text) => channel.push('echo', { data: text }).receive('ok', ({ data }) => report('message', { data })),
});
