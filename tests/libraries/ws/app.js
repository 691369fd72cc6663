// An echo with the heartbeat of ws's own documentation: a WebSocket ping on a timer. A client that has not answered the
// last ping when the next is due is terminated.
import { createServer } from 'node:http';

import { WebSocketServer } from 'ws';

import { listen, report } from '../../express/report.js';

const INTERVAL_MS = 2_000;

const server = createServer();
new WebSocketServer({ server }).on('connection', (socket) => {
  let alive = true;
  const timer = setInterval(() => {
    if (!alive) return socket.terminate();
    alive = false;
    socket.ping();
  }, INTERVAL_MS);
  report('open', {});
  socket.on('pong', () => {
    alive = true;
    report('beat', {});
  });
  socket.on('message', (data) => {
    report('message', { data: String(data) });
    socket.send(String(data));
  });
  socket.on('error', ({ message }) => report('error', { message }));
  socket.on('close', (code, reason) => {
    clearInterval(timer);
    report('close', { code, reason: String(reason) });
  });
});
listen(server);
