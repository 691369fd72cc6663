// An echo that pings its clients, and a browser page with one of the libraries.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { report, serve } from '../serve.js';

const INTERVAL_MS = 500;

const { resolve } = createRequire(import.meta.url);
const files = {
  '/': ['text/html', new URL('page.html', import.meta.url)],
  '/library.js': ['text/javascript', resolve('reconnecting-websocket/dist/reconnecting-websocket-iife.min.js')],
};

serve(
  (socket) => {
    const timer = setInterval(() => socket.ping(), INTERVAL_MS);
    report('open', {});
    socket.on('pong', () => report('beat', {}));
    socket.on('message', (data) => {
      report('message', { data: String(data) });
      socket.send(String(data));
    });
    socket.on('close', () => clearInterval(timer));
  },
  ({ url }, response) => {
    const [type, file] = files[url] ?? [];
    if (!file) return response.writeHead(404).end();
    response.writeHead(200, { 'Content-Type': type }).end(readFileSync(file));
  },
);
