// An Express app with a WebSocket echo, without any heartbeat code: an app as it is before pulsegate.
const { createServer } = require('node:http');

const express = require('express');
const { WebSocketServer } = require('ws');

const app = express();
app.set('trust proxy', 'loopback');
app.get('/healthz', (_request, response) => response.send('ok\n'));
app.get('/', (request, response) => response.send(`Hello ${request.ip} by ${request.protocol}\n`));

const server = createServer(app);
const sockets = new WebSocketServer({ server, path: '/ws' });
sockets.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('error', ({ message }) => console.log(`error ${message}`));
  socket.on('close', (code, reason) => console.log(`close ${code} ${reason}`));
});

const { HOST = '0.0.0.0', PORT = '3000' } = process.env;
server.listen(Number(PORT), HOST, () => console.log(`listening ${server.address().port}`));

process.on('SIGTERM', () => {
  for (const socket of sockets.clients) socket.close(1001);
  server.close(() => process.exit(0));
});
