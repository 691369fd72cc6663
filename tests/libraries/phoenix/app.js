// A channel that echoes, in the serializer of version 2: [join_ref, ref, topic, event, payload].
import { createServer } from 'node:http';

import { WebSocketServer } from 'ws';

import { listen, report } from '../../express/report.js';

const server = createServer();
new WebSocketServer({ server }).on('connection', (socket, { url }) => {
  report('connection', { url });

  const responses = {
    heartbeat: () => {
      report('beat', {});
      return {};
    },
    phx_join: () => {
      report('open', {});
      return {};
    },
    echo: ({ data }) => {
      report('message', { data });
      return { data };
    },
  };

  socket.on('message', (message) => {
    const [joinRef, ref, topic, event, payload] = JSON.parse(message);
    const response = responses[event](payload);
    socket.send(JSON.stringify([joinRef, ref, topic, 'phx_reply', { status: 'ok', response }]));
  });
  socket.on('error', ({ message }) => report('error', { message }));
  socket.on('close', (code, reason) => report('close', { code, reason: String(reason) }));
});
listen(server);
