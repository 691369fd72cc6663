// A WebSocket client in a process of its own: prints what happens to it, does what it is told on stdin, one JSON a line.
//
//   node client.js URL --ca FILE [--answer] [--mute] [--deflate] [--protocol NAME]...
//
//   --answer   answers the app's heartbeat messages, as the page of the classic recipe does
//   --mute     does not answer WebSocket pings
//   --deflate  offers permessage-deflate
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import WebSocket from 'ws';

import { report } from './report.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    ca: { type: 'string' },
    answer: { type: 'boolean', default: false },
    mute: { type: 'boolean', default: false },
    deflate: { type: 'boolean', default: false },
    protocol: { type: 'string', multiple: true, default: [] },
  },
});

const ws = new WebSocket(positionals[0], values.protocol, {
  ca: values.ca && readFileSync(values.ca),
  autoPong: !values.mute,
  perMessageDeflate: values.deflate && { threshold: 0 },
});

let socket;
let expected;
ws.on('upgrade', (response) => ({ socket } = response));
ws.on('unexpected-response', (_request, response) => {
  let body = '';
  response.on('data', (chunk) => (body += chunk));
  response.on('end', () => report('refused', { status: response.statusCode, headers: response.headers, body }));
});
ws.on('open', () => report('open', { extensions: ws.extensions, protocol: ws.protocol }));
ws.on('ping', () => report('ping', {}));
ws.on('error', ({ message }) => report('error', { message }));
ws.on('close', (code, reason) => {
  report('close', { code, reason: String(reason) });
  process.exit(0);
});
ws.on('message', (data, isBinary) => {
  if (!isBinary && String(data) === 'heartbeat') {
    if (values.answer) ws.send('heartbeat');
    return report('beat', {});
  }
  if (expected) {
    report('echo', { same: expected.equals(data), size: data.length, binary: isBinary, wire: socket.bytesRead });
    return (expected = undefined);
  }
  report('message', { data: String(data), binary: isBinary });
});

const orders = {
  // A text message.
  send: (text) => ws.send(text),
  // A binary message of that many bytes which compresses well; its echo is compared.
  fill: (size) => {
    expected = Buffer.alloc(size, 'all work and no play makes jack a dull boy. ');
    ws.send(expected);
  },
  // Uploads without end, as fast as the socket takes it. A write that ends at once must not keep Node from reading.
  upload: (size) => {
    const chunk = randomBytes(size);
    const next = () => ws.readyState === WebSocket.OPEN && ws.send(chunk, () => setImmediate(next));
    next();
    report('uploading', {});
  },
  close: ([code, reason]) => ws.close(code, reason),
};

createInterface({ input: process.stdin })
  .on('line', (line) => {
    for (const [order, argument] of Object.entries(JSON.parse(line))) orders[order](argument);
  })
  .on('close', () => process.exit(0));
