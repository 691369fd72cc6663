// A broker, aedes, with its own keep-alive switched off: the proxy takes its place.
import { Aedes } from 'aedes';
import { createWebSocketStream } from 'ws';

import { report, serve } from '../serve.js';
import { serveVersion5 } from './version5.js';

const broker = await Aedes.createBroker({
  preConnect: (_client, packet, done) => {
    report('connect', { keepalive: packet.keepalive });
    packet.keepalive = 0;
    done(null, true);
  },
  authorizePublish: (_client, { payload }, done) => {
    report('message', { data: String(payload) });
    done(null);
  },
});
broker.on('client', () => report('open', {}));
broker.on('ping', () => report('beat', {}));
broker.on('clientDisconnect', ({ id }) => report('clientDisconnect', { id }));
broker.on('clientError', (_client, { message }) => report('error', { message }));

serve((socket, request) => {
  if (request.url === '/version5') return serveVersion5(socket);
  broker.handle(createWebSocketStream(socket), request);
});
