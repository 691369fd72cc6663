// A Fastify app with a WebSocket route of @fastify/websocket.
import websocket from '@fastify/websocket';
import Fastify from 'fastify';

import { echo, report, without } from '../serve.js';

const app = Fastify({ trustProxy: without('trustProxy') ? false : 'loopback' });
await app.register(websocket);
app.get('/echo', { websocket: true }, (socket, { protocol }) => {
  report('seen', { protocol });
  echo(socket);
});
await app.listen({ port: 0, host: '127.0.0.1' });
console.log(`listening ${app.server.address().port}`);
