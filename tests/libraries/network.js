// The network thread of one WebSocket of websocket.js.
import { parentPort, workerData } from 'node:worker_threads';

import WebSocket from 'ws';

const tell = (type, fields) => parentPort.postMessage({ type, ...fields });

const { url, protocols } = workerData;
// Chromium compresses every message if the app agrees to it.
const socket = new WebSocket(url, protocols, { perMessageDeflate: { threshold: 0 } });
socket.binaryType = 'arraybuffer';
socket.on('open', () => tell('open', { protocol: socket.protocol, extensions: socket.extensions }));
socket.on('message', (data, isBinary) => tell('message', { data: isBinary ? data : data.toString() }));
socket.on('error', ({ message }) => tell('error', { message }));
socket.on('close', (code, reason) => {
  tell('close', { code, reason: String(reason), wasClean: code !== 1006 });
  parentPort.close();
});

const orders = {
  send: ({ data }) => socket.send(data),
  close: ({ code, reason }) => socket.close(code, reason),
};
parentPort.on('message', ({ order, ...fields }) => orders[order](fields));
