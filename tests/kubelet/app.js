// The app of the replayed pods: Express, an echo over WebSockets, and an end on SIGTERM unless IGNORE_SIGTERM is set.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../express/', import.meta.url));
const express = require('express');
const { WebSocketServer } = require('ws');

const { HOST = '0.0.0.0', PORT = '3000', IGNORE_SIGTERM } = process.env;
const app = express();
app.get('/', (_request, response) => response.type('text').send('ok'));
app.get('/healthz', (_request, response) => response.type('text').send('ok'));

const server = createServer(app);
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('close', (code) => console.log(JSON.stringify({ event: 'close', code })));
});
// As the first process of its container it would get no signal without a handler.
process.on('SIGTERM', () => {
  console.log(JSON.stringify({ event: 'SIGTERM', open: sockets.clients.size }));
  if (!IGNORE_SIGTERM) process.exit(0);
});
server.listen({ port: Number(PORT), host: HOST, backlog: 4096 }, () => console.log(JSON.stringify({ event: 'listening' })));
