// A WebSocket server that reports the end of each connection; with permessage-deflate for every message, however short,
// if the target contains the word `deflate`. `respond` handles plain requests.
import { createServer } from 'node:http';

import { WebSocketServer } from 'ws';

import { listen, report } from '../express/report.js';

export { report };

export function serve(session, respond) {
  const plain = new WebSocketServer({ noServer: true });
  const compressed = new WebSocketServer({ noServer: true, perMessageDeflate: { threshold: 0 } });
  const server = createServer(respond);
  server.on('upgrade', (request, upgraded, head) => {
    const sockets = request.url.includes('deflate') ? compressed : plain;
    sockets.handleUpgrade(request, upgraded, head, (socket) => {
      report('connection', { url: request.url, protocol: socket.protocol, extensions: socket.extensions });
      socket.on('error', ({ message }) => report('error', { message }));
      socket.on('close', (code, reason) => report('close', { code, reason: String(reason) }));
      session(socket, request);
    });
  });
  listen(server);
}
