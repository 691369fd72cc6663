// Node's HTTP/2 client: a plain request and two WebSockets over streams of one connection (RFC 8441). Prints what
// happens, one JSON a line; ends when both sockets have been closed.
//
//   node client.mjs URL --ca FILE
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { parseArgs } from 'node:util';

const { positionals, values } = parseArgs({ allowPositionals: true, options: { ca: { type: 'string' } } });

const TEXT = 0x1;
const CLOSE = 0x8;
const PING = 0x9;
const PONG = 0xa;

const report = (event, facts) => console.log(JSON.stringify({ event, ...facts }));

// A whole frame under 126 bytes, masked (RFC 6455 §5.2).
function frame(opcode, payload) {
  const mask = randomBytes(4);
  const masked = Buffer.from(payload).map((byte, at) => byte ^ mask[at % 4]);
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | masked.length]), mask, masked]);
}

function open(session, path) {
  const stream = session.request(
    { ':method': 'CONNECT', ':protocol': 'websocket', ':path': path, 'sec-websocket-version': '13' },
    { endStream: false },
  );
  stream.on('response', (headers) => {
    report('response', { path, status: headers[':status'], accept: headers['sec-websocket-accept'] ?? null });
    stream.write(frame(TEXT, `hello from ${path}`));
  });
  let ahead = Buffer.alloc(0);
  let pings = 0;
  stream.on('data', (data) => {
    ahead = Buffer.concat([ahead, data]);
    while (ahead.length >= 2 && ahead.length >= 2 + ahead[1]) {
      const [opcode, payload] = [ahead[0] & 0xf, ahead.subarray(2, 2 + ahead[1])];
      ahead = ahead.subarray(2 + ahead[1]);
      if (opcode === TEXT) report('message', { path, data: String(payload) });
      if (opcode === CLOSE) report('close', { path, code: payload.readUInt16BE() });
      if (opcode === CLOSE) stream.end();
      if (opcode !== PING) continue;
      stream.write(frame(PONG, payload));
      pings += 1;
      if (pings === 3) stream.write(frame(CLOSE, [0x03, 0xe8]));
    }
  });
  return new Promise((resolve) => {
    stream.on('close', () => {
      report('closed', { path, pings, code: stream.rstCode });
      resolve();
    });
  });
}

const session = connect(positionals[0], { ca: readFileSync(values.ca) });
const [settings] = await once(session, 'remoteSettings');
report('settings', { connect: settings.enableConnectProtocol, streams: settings.maxConcurrentStreams });

const get = session.request({ ':path': '/' });
const [headers] = await once(get, 'response');
let length = 0;
for await (const chunk of get) length += chunk.length;
report('get', { status: headers[':status'], length, announced: Number(headers['content-length']) });

await Promise.all([open(session, '/ws?name=one'), open(session, '/ws?name=two')]);
session.close();
