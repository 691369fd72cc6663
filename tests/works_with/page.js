// A client of `ws` that sends texts as they are.
//
//   node page.js URL
import WebSocket from 'ws';

import { report, takeOrders, url } from '../libraries/page.js';

const socket = new WebSocket(url);
socket.on('open', () => report('open', {}));
socket.on('message', (data) => report('message', { data: String(data) }));
socket.on('error', ({ message }) => report('error', { message }));
socket.on('close', (code, reason) => report('close', { code, reason: String(reason) }));

takeOrders({ send: (text) => socket.send(text) });
