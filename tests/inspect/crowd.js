// An admin listener of a proxy that has many sessions: serves the inspect page as the program does, and answers it from
// sessions that are made up. Real ones would show no more of the page and cost this machine ten thousand sockets.
// `like_the_program.rs` compares its answers with the program's own.
//
//   node crowd.js [--sessions 5000] [--closed 300] [--churn 10] [--seed 1] [--dev]
//
// Churn is the number of sessions that open, and of those that close, in a second. POST /crowd/{lose,restart} causes
// the named fault.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    sessions: { type: 'string', default: '5000' },
    closed: { type: 'string', default: '300' },
    churn: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
    dev: { type: 'boolean', default: false },
  },
});
const [wanted, closedFirst, churn] = [values.sessions, values.closed, values.churn].map(Number);

const FILES = new URL('../../src/admin/page/', import.meta.url);
const KINDS = { html: 'text/html; charset=utf-8', css: 'text/css', js: 'text/javascript', svg: 'image/svg+xml' };
const POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const RING = 4096;

const AGENTS = [
  'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36',
  'Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/604.1',
  'okhttp/4.12.0',
  null,
];
const PLACES = [
  { path: '/chat', route: '/chat' },
  { path: '/chat', route: '/chat' },
  { path: '/live/scores', route: '/live' },
  { path: '/graphql', route: 'api.app.example/graphql', subprotocol: 'graphql-transport-ws' },
  { path: '/notifications', route: '/' },
];
const ENDS = [
  (c) => ['proxy', 'heartbeat_timeout', 1012, 4408, 'heartbeat timeout', `client stopped answering: last pong 45.2 s ago, RTT was ${Math.round(c.heartbeat.rtt_s * 1000)} ms`],
  () => ['client', 'normal', 1001, 1001, null, 'client went away: its page was left, or its program ended (1001)'],
  () => ['client', 'normal', 1000, 1000, 'bye', 'client closed the session with 1000 "bye"'],
  () => ['client', 'normal', 1006, 1006, null, "client's connection broke without a Close: connection reset"],
  () => ['proxy', 'slow_reader', 1012, 4408, 'slow reader', 'client stopped reading: it took nothing of what was sent to it for 10 s'],
];

// The same crowd every time.
let state = Number(values.seed);
function random() {
  state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
  return state / 4_294_967_296;
}
const between = (from, to) => from + random() * (to - from);
const pick = (list) => list[Math.floor(random() * list.length)];
const now = () => Date.now() / 1000;

const live = new Map();
const closed = [];
const readers = new Set();
const ring = [];
const totals = { opened: 0, closed: 0, in: { msgs: 0, bytes: 0 }, out: { msgs: 0, bytes: 0 } };
let started = now() - 4000;
let lastId = 0;
let lastEvent = 0;
let beat = 0;

function open(age) {
  const { path, route, subprotocol = null } = pick(PLACES);
  const id = `16c7917e${(lastId += 1).toString(16).padStart(8, '0')}`;
  const at = now();
  const rtt = Math.exp(between(Math.log(0.008), Math.log(0.12)));
  const measured = age > 5;
  const client = random() < 0.1 ? `[2001:db8:${Math.floor(between(1, 9999))}::7]` : `${pick(['203.0.113', '198.51.100', '192.0.2'])}.${Math.floor(between(1, 254))}`;
  const conn = {
    id, state: 'open', route, path, client: `${client}:${Math.floor(between(1024, 65_000))}`, user_agent: pick(AGENTS), sni: 'app.example',
    tls: { version: '1.3', group: 'X25519MLKEM768' }, protocol: pick(['h1', 'h2']), subprotocol, trace_id: null,
    opened_at: at - age, closed_at: null, duration_s: age, last_seen_at: at - Math.min(age, between(0, 20)), idle_s: 0,
    heartbeat: {
      mode: 'protocol', profile: null, interval_s: 25, timeout_s: 20, misses: 0, max: 1, missed: random() < 0.03 ? 1 : 0,
      rtt_s: measured ? rtt : null, rtt_min_s: measured ? rtt * 0.8 : null, next_deadline_at: at + between(5, 25),
    },
    in: { msgs: Math.floor(age / 9), bytes: Math.floor(age * 40), buffered: 0 },
    out: { msgs: Math.floor(age / 2), bytes: Math.floor(age * 700), buffered: random() < 0.005 ? 44_000 : 0 },
    config_generation: 1, close: null,
  };
  live.set(id, conn);
  totals.opened += 1;
  return conn;
}

function close(conn, [initiator, reason, code, upstream_code, text, sentence], at = now()) {
  live.delete(conn.id);
  totals.closed += 1;
  Object.assign(conn, { state: 'closed', closed_at: at, duration_s: at - conn.opened_at });
  Object.assign(conn.heartbeat, { rtt_min_s: null, next_deadline_at: null });
  conn.close = { initiator, reason, detail: null, code, upstream_code, text, sentence };
  closed.unshift(conn);
  closed.splice(1000);
}

function tell(event, data) {
  const text = `id: ${(lastEvent += 1)}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
  ring.push({ id: lastEvent, text });
  if (ring.length > RING) ring.shift();
  for (const reader of readers) reader.write(text);
}

function stats() {
  const all = [...live.values()];
  const rtts = all.map(({ heartbeat }) => heartbeat.rtt_s).filter(Boolean).sort((a, b) => a - b);
  const rank = (share) => rtts[Math.max(0, Math.ceil(rtts.length * share) - 1)] ?? null;
  return {
    at: now(), open: all.length, opened_total: totals.opened, closed_total: totals.closed, in: { ...totals.in }, out: { ...totals.out },
    buffered: all.reduce((sum, conn) => sum + conn.out.buffered, 0),
    rtt: { p50_s: rank(0.5), p90_s: rank(0.9), p99_s: rank(0.99), max_s: rank(1), count: rtts.length },
    missing: all.filter(({ heartbeat }) => heartbeat.misses).length, draining: false, phase: 'serving', generation: 1,
  };
}

// Advances the crowd by a tenth of a second.
function liveOn() {
  const all = [...live.values()];
  for (let turn = 0; turn < churn / 10; turn += 1) {
    const leaving = pick(all);
    if (leaving && live.has(leaving.id)) {
      close(leaving, pick(ENDS)(leaving));
      tell('close', leaving);
    }
    tell('open', open(0));
  }
  // Each session has one heartbeat in 25 s.
  for (let turn = 0; turn < all.length / 250; turn += 1) {
    const conn = all[(beat += 1) % all.length];
    const { heartbeat } = conn;
    conn.last_seen_at = now();
    heartbeat.next_deadline_at = now() + 25;
    heartbeat.rtt_s = (heartbeat.rtt_min_s ?? 0.02) * Math.exp(between(0, 0.6)) * (random() < 0.02 ? 4 : 1);
    heartbeat.rtt_min_s ??= heartbeat.rtt_s;
    heartbeat.misses = 0;
    for (const [way, bytes] of [['in', 120], ['out', 2100]]) {
      conn[way].msgs += 3;
      conn[way].bytes += bytes;
      totals[way].msgs += 3;
      totals[way].bytes += bytes;
    }
  }
  if (random() < 0.1) {
    const { id, heartbeat } = pick(all);
    heartbeat.misses = 1;
    heartbeat.missed += 1;
    tell('miss', { id, misses: 1, max: 1, at: now() });
  }
}

for (let turn = 0; turn < wanted; turn += 1) open(between(1, 40_000) * random());
for (let turn = closedFirst; turn > 0; turn -= 1) {
  const conn = open(between(10, 9000));
  conn.opened_at -= turn * 11;
  close(conn, pick(ENDS)(conn), now() - turn * 11);
}
if (churn > 0) setInterval(liveOn, 100);
setInterval(() => {
  const text = `event: stats\ndata: ${JSON.stringify(stats())}\n\n`;
  for (const reader of readers) reader.write(text);
}, 1000);

function events(request, response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream' });
  response.write('retry: 1000\n\n');
  const last = Number(request.headers['last-event-id'] ?? lastEvent);
  for (const { id, text } of ring) if (id > last) response.write(text);
  readers.add(response);
  response.on('close', () => readers.delete(response));
}

// A cursor is the last id that was shown, so that no session is skipped when others leave.
function list({ searchParams }) {
  const all = searchParams.get('state') === 'closed' ? closed : [...live.values()];
  const after = searchParams.get('cursor');
  const from = after === null ? 0 : Math.max(0, all.findIndex(({ id }) => (all === closed ? id === after : id > after)));
  const to = from + Number(searchParams.get('limit') ?? 100);
  const connections = all.slice(from, to);
  const next = all === closed ? all[to] : all[to] && connections.at(-1);
  return { now: now(), generation: 1, total: all.length, connections, next_cursor: next?.id ?? null };
}

function diagnosis(connection) {
  const other = [...live.values()].find(({ id }) => id !== connection.id);
  const address = connection.client.replace(/:\d+$/, '');
  const story = [
    { topic: 'state', text: `Connection ${connection.id} is ${connection.state}.` },
    ...(connection.close
      ? [{ topic: 'client', text: `The client received Close ${connection.close.code}.` }]
      : [{ topic: 'next', text: 'A ping is sent in 12 s, unless the client sends something first.' }, { topic: 'held', text: 'Nothing, for either side.' }]),
    { topic: 'before', text: `1 earlier session of ${address}.` },
    { topic: 'after', text: `No later session of ${address} is open or remembered.` },
  ];
  const before = { total: 1, connections: other ? [other] : [] };
  return { now: now(), generation: 1, connection, story, before, after: { total: 0, connections: [] } };
}

function answer({ pathname, ...url }, method) {
  const [, id, story] = /^\/v1\/connections\/([0-9a-f]{16})(\/diagnosis)?$/.exec(pathname) ?? [];
  const found = id && (live.get(id) ?? closed.find((conn) => conn.id === id));
  if (id) return found && story ? diagnosis(found) : found;
  switch (`${method} ${pathname}`) {
    case 'GET /v1/info':
      return { version: '0.1.0', dev: values.dev, pid: process.pid, started_at: started, now: now(), listen: '0.0.0.0:8443', upstreams: ['http://127.0.0.1:3000'], admin_token: false };
    case 'GET /v1/connections':
      return list(url);
    // The connection of every reader breaks; the events meanwhile are kept for them.
    case 'POST /crowd/lose':
      for (const reader of readers) reader.destroy();
      return {};
    // It is another process now, with other sessions.
    case 'POST /crowd/restart':
      started = now();
      live.clear();
      closed.length = ring.length = lastEvent = 0;
      for (const reader of readers) reader.destroy();
      return {};
    default:
      return undefined;
  }
}

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://crowd');
  const [, name, kind] = /^\/(?:([a-z]+)\.(css|js|svg))?$/.exec(url.pathname) ?? [null, null, null];
  if (url.pathname === '/' || name) {
    const file = name ? `${name}.${kind}` : 'inspect.html';
    response.writeHead(200, { 'Content-Type': KINDS[kind ?? 'html'], 'Content-Security-Policy': POLICY });
    response.end(readFileSync(new URL(file, FILES)));
  } else if (url.pathname === '/v1/events') {
    events(request, response);
  } else {
    const found = answer({ pathname: url.pathname, searchParams: url.searchParams }, request.method);
    response.writeHead(found ? 200 : 404, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(found ?? { error: { code: 'not_found', message: 'not found' } }));
  }
});
server.listen(0, '127.0.0.1', () => console.log(`listening http://127.0.0.1:${server.address().port}/`));
