// The plain HTTP side of the app: what an Express app does beside its WebSockets.
import { readFileSync } from 'node:fs';

import { Router } from 'express';

export const routes = new Router();

// The page as browsers still have it after the app's own heartbeat is gone: the one of classic.js, word for word.
const read = (file) => readFileSync(new URL(file, import.meta.url), 'utf8');
const [, answering] = /const page = `(.*?)`;/s.exec(read('classic.js'));
routes.get('/answering', (_request, response) => response.type('html').send(answering));

// A page that beats by itself.
const beating = read('beating.html');
routes.get('/beating', (_request, response) => response.type('html').send(beating));

// The request as it arrived, header names and order untouched.
routes.all('/request', (request, response) => {
  const { method, url, httpVersion, rawHeaders, headers } = request;
  response.json({ method, url, httpVersion, rawHeaders, headers });
});

// Streams the body back while it arrives.
routes.post('/echo', (request, response) => {
  response.set('Content-Type', request.get('Content-Type') ?? 'application/octet-stream');
  response.flushHeaders();
  request.pipe(response);
});

// A response that grows only when somebody posts to it, as server-sent events do.
const listeners = new Set();
routes.get('/events', (request, response) => {
  response.set('Content-Type', 'text/event-stream').flushHeaders();
  listeners.add(response);
  response.on('close', () => listeners.delete(response));
});
routes.post('/events/:data', (request, response) => {
  for (const listener of listeners) listener.write(`data: ${request.params.data}\n\n`);
  response.json({ listeners: listeners.size });
});

// Any status, with a body and headers of both kinds: end to end and hop by hop.
routes.all('/status/:code', (request, response) => {
  response.set({ Connection: 'X-Hop', 'X-Hop': 'app', 'X-Powered-By': 'Express', 'Set-Cookie': ['a=1', 'b=2'] });
  response.status(Number(request.params.code)).send(`status ${request.params.code}\n`);
});

// Refuses an upgrade the way an app does that wants a login first.
export function refuse(socket) {
  const body = 'log in first\n';
  socket.end(
    'HTTP/1.1 401 Unauthorized\r\n' +
      'WWW-Authenticate: Bearer realm="app"\r\n' +
      'Content-Type: text/plain\r\n' +
      `Content-Length: ${body.length}\r\n` +
      `Connection: close\r\n\r\n${body}`,
  );
}
