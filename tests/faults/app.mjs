// An app that does one thing to the WebSockets of each path, and can be stopped in the middle of it. It echoes on all
// other paths.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

import { listen, report } from '../express/report.js';

const { WebSocketServer } = createRequire(`${process.cwd()}/`)('ws');

// Between the first half of something and the second.
const PAUSE = 600;

const payload = Buffer.alloc(1000, 'x');

// The second half, after the message "go", by path.
const halves = {
  '/half-frame'(socket, open) {
    open.frame = true;
    const frame = Buffer.concat([Buffer.from([0x82, 126, payload.length >> 8, payload.length & 255]), payload]);
    socket._socket.write(frame.subarray(0, 500));
    return () => {
      socket._socket.write(frame.subarray(500));
      open.frame = false;
      for (const data of open.pings.splice(0)) socket.pong(data);
    };
  },
  '/half-message'(socket) {
    socket.send(payload.subarray(0, 500), { binary: true, fin: false });
    return () => socket.send(payload.subarray(500), { binary: true, fin: true });
  },
  '/close'(socket) {
    socket.send('first');
    return () => socket.close(4001, 'app');
  },
  // Its Close is on the wire when it stops; the answer arrives meanwhile.
  '/closing'(socket) {
    socket.close(4002, 'closing');
    return () => {};
  },
};

const server = createServer((_request, response) => response.end('ok'));
const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, autoPong: false });

server.on('upgrade', (request, socket, head) => {
  const name = request.url.slice(1);
  const accept = () => sockets.handleUpgrade(request, socket, head, (ws) => serve(ws, request.url, name));
  if (request.url !== '/late') return accept();
  report('asked', { name });
  setTimeout(accept, PAUSE);
});

function serve(ws, path, name) {
  // Pings that wait for the end of a frame under way.
  const open = { frame: false, pings: [] };
  report('open', { name });
  ws.on('ping', (data) => (open.frame ? open.pings.push(data) : ws.pong(data)));
  if (path.startsWith('/flood')) flood(ws);
  ws.on('message', (data, binary) => {
    const half = halves[path];
    if (!half) return ws.send(data, { binary });
    const rest = half(ws, open);
    report('half', { name });
    setTimeout(rest, PAUSE);
  });
  ws.on('error', ({ message }) => report('error', { name, message }));
  ws.on('close', (code, reason) => report('close', { name, code, reason: String(reason) }));
}

// Sends for as long as possible; up to 1 MiB that is not taken is queued here.
function flood(ws) {
  const message = Buffer.alloc(32768, 'f');
  const more = () => {
    while (ws.readyState === ws.OPEN && ws.bufferedAmount < 1 << 20) ws.send(message);
    if (ws.readyState === ws.OPEN) setTimeout(more, 5);
  };
  more();
}

listen(server);
