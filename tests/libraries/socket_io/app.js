// A Socket.IO server that pings more often than its default, with the default's timeout; and a page that uses it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { Server } from 'socket.io';

import { listen, report } from '../../express/report.js';

const page = readFileSync(new URL('page.html', import.meta.url));
const server = createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(page));
const io = new Server(server, { pingInterval: 400, pingTimeout: 20_000 });
io.on('connection', (socket) => {
  const { conn } = socket;
  const opened = (from) => report('open', { transport: conn.transport.name, from });
  if (conn.transport.name === 'polling') conn.once('upgrade', () => opened('polling'));
  else opened('websocket');
  conn.on('heartbeat', () => report('beat', {}));
  socket.on('echo', (data) => {
    report('message', { data });
    socket.emit('echo', data);
  });
  socket.on('disconnect', (reason, details) => report('close', { reason, details }));
});
listen(server);
