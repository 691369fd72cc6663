// A client of a NestJS gateway: one plain request, then a WebSocket whose messages are events.
import WebSocket from 'ws';

import { report, takeOrders, url } from '../../libraries/page.js';

await fetch(new URL('/seen', url.replace(/^ws/, 'http')));
const socket = new WebSocket(url);
socket.on('open', () => report('open', {}));
socket.on('message', (message) => report('message', { data: JSON.parse(message).data }));
socket.on('error', ({ message }) => report('error', { message }));
socket.on('close', (code, reason) => report('close', { code, reason: String(reason) }));

takeOrders({ send: (data) => socket.send(JSON.stringify({ event: 'echo', data })) });
