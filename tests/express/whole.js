// An Express app that uses what Express apps use: sessions, uploads, downloads with ranges, events, compression, and
// what a proxy in front tells it. Two runs of it answer the same requests with the same bytes.
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

import compression from 'compression';
import express from 'express';
import session from 'express-session';
import multer from 'multer';

import { listen } from './report.js';

const file = new URL('package-lock.json', import.meta.url).pathname;
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

const app = express();
app.set('trust proxy', 'loopback');
app.set('env', 'production');
app.use(compression({ threshold: 0 }));

let sessions = 0;
app.use(
  session({
    secret: 'no secret',
    name: 'sid',
    resave: false,
    saveUninitialized: false,
    genid: () => `session-${++sessions}`,
    cookie: { secure: 'auto', httpOnly: true, sameSite: 'lax' },
  }),
);

// Who asks, as far as Express can tell.
app.get('/who', (request, response) => {
  const { ip, ips, protocol, secure, hostname, host } = request;
  response.json({ ip, ips, protocol, secure, hostname, host, id: request.get('X-Request-Id') });
});

// A login that lasts.
app.post('/login', express.urlencoded(), (request, response) => {
  request.session.user = request.body.user;
  response.redirect(303, '/me');
});
app.get('/me', (request, response) => {
  if (!request.session.user) return response.status(401).json({ error: 'log in first' });
  request.session.visits = (request.session.visits ?? 0) + 1;
  response.cookie('seen', String(request.session.visits)).json({ ...request.session, cookie: undefined });
});
app.post('/logout', (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : response.clearCookie('sid').status(204).end()));
});

// Uploads: forms with files, JSON with a limit, and bytes that are counted as they come.
const upload = multer({ storage: multer.memoryStorage(), limits: { fileSize: 8 << 20 } });
app.post('/upload', upload.any(), (request, response) => {
  const files = request.files.map(({ fieldname, originalname, mimetype, size, buffer }) => {
    return { fieldname, originalname, mimetype, size, sha256: sha256(buffer) };
  });
  response.status(201).json({ fields: request.body, files });
});
app.post('/json', express.json({ limit: '1kb' }), (request, response) => response.json(request.body));
app.put('/count', (request, response) => {
  const hash = createHash('sha256');
  request.on('data', (chunk) => hash.update(chunk));
  request.on('end', () => response.json({ sha256: hash.digest('hex'), trailers: request.trailers }));
});

// Downloads.
app.get('/file', (_request, response) => response.sendFile(file));
app.get('/download', (_request, response) => response.download(file, 'Übersicht.json'));
app.get('/large', (_request, response) => {
  const chunk = Buffer.alloc(64 << 10, 'large ');
  let left = 128;
  const write = () => {
    while (left-- > 0) if (!response.write(chunk)) return response.once('drain', write);
    response.end();
  };
  response.type('application/octet-stream');
  write();
});
app.get('/text', (_request, response) => response.type('text').send('All work and no play. '.repeat(1_000)));
app.get('/empty', (_request, response) => response.status(204).end());
app.get('/events', (_request, response) => {
  response.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache, no-transform' });
  for (const id of [1, 2, 3]) response.write(`id: ${id}\nevent: tick\ndata: {"n":${id}}\n\n`);
  response.end();
});

// Corners of HTTP.
app.get('/cached', (_request, response) => response.set('ETag', '"v1"').vary('Accept-Language').send('cached'));
app.get('/cookies', (_request, response) => response.cookie('a', '1').cookie('b', 'ü', { path: '/x' }).send('two'));
app.get('/away', (request, response) => response.redirect(`${request.protocol}://${request.host}/who`));
app.get('/hints', (_request, response) => {
  response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
  response.send('hinted');
});
app.get('/trailers', (_request, response) => {
  response.set({ Trailer: 'X-Sum', 'Cache-Control': 'no-transform' });
  response.write('summed');
  response.addTrailers({ 'X-Sum': sha256('summed') });
  response.end();
});
app.get('/latin1', (_request, response) => response.set('X-Word', 'caf\u00e9').send('ok'));
app.get('/broken', () => {
  throw new Error('broken');
});

listen(createServer(app));
