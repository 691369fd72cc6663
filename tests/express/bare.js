// An Express app with an echo over WebSockets.
import { createServer } from 'node:http';

import express from 'express';
import { WebSocketServer } from 'ws';

import { listen, report } from './report.js';
import { refuse, routes } from './routes.js';

const page = `<!doctype html>
<html lang="en">
<title>Echo</title>
<ol id="log"></ol>
<script>
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws' + location.search);
  const log = (event) => {
    document.querySelector('#log').append(Object.assign(document.createElement('li'), { textContent: event.event }));
    console.log(JSON.stringify(event));
  };
  socket.onopen = () => log({ event: 'open' });
  socket.onmessage = ({ data }) => {
    log({ event: 'message', data });
  };
  socket.onclose = ({ code, reason, wasClean }) => log({ event: 'close', code, reason, wasClean });
</script>
</html>`;

const app = express();
app.get('/', (_request, response) => response.type('html').send(page));
app.use(routes);

const plain = new WebSocketServer({ noServer: true });
const compressed = new WebSocketServer({ noServer: true, perMessageDeflate: { threshold: 0 } });

const server = createServer(app);
server.on('upgrade', (request, socket, head) => {
  const { pathname, searchParams } = new URL(request.url, 'http://app');
  if (pathname === '/refuse') return refuse(socket);
  const sockets = pathname === '/deflate' ? compressed : plain;
  sockets.handleUpgrade(request, socket, head, (ws) => serve(ws, pathname, searchParams.get('name'), request));
});

function serve(ws, pathname, name, request) {
  let payload = 0;
  report('open', { name, extensions: ws.extensions, protocol: ws.protocol, headers: request.headers });

  ws.on('message', (data, isBinary) => {
    payload += data.length;
    if (pathname === '/sink') return;
    ws.send(data, { binary: isBinary });
  });
  ws.on('error', ({ message }) => report('error', { name, message }));
  ws.on('close', (code, reason) => {
    report('close', { name, code, reason: String(reason), payload, wire: request.socket.bytesRead });
  });
}

listen(server);
