// A broker, aedes, whose own keep-alive is switched off: that is the proxy's business.
import { createServer } from 'node:http';

import { Aedes } from 'aedes';
import { WebSocketServer, createWebSocketStream } from 'ws';

import { listen, report } from '../../express/report.js';

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

const server = createServer();
new WebSocketServer({ server }).on('connection', (socket, request) => {
  broker.handle(createWebSocketStream(socket), request);
  socket.on('close', (code, reason) => report('close', { code, reason: String(reason) }));
});
listen(server);
