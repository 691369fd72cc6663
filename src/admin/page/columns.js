// The columns of the two tables: text, hover text and sort key.
import { ago, bytes, count, endpoint, long, moment, plural, short } from './format.js';

const health = ({ health: word }) => word;

// The idle time is computed from the last byte, so that it grows between updates.
const seen = ({ conn }) => conn.last_seen_at ?? conn.opened_at;
const idle = (session, now) => Math.max(0, (session.conn.closed_at ?? now) - seen(session));

const path = {
  id: 'path',
  title: 'Path',
  key: ({ conn }) => conn.path,
  text: ({ conn }) => conn.path,
  note: ({ conn }) => [conn.subprotocol, conn.protocol === 'h2' && 'HTTP/2'].filter(Boolean).join(' · '),
  hover: ({ conn }) => [conn.path, `route ${conn.route}`, conn.subprotocol].filter(Boolean).join('\n'),
};

const client = {
  id: 'client',
  title: 'Client',
  key: ({ clientKey }) => clientKey,
  text: ({ conn }) => endpoint(conn.client),
  hover: ({ conn }) => `${conn.client}\n${conn.user_agent ?? 'no user agent'}`,
};

const missed = ({ conn }) => conn.heartbeat.missed;

export const OPEN = [
  { id: 'state', title: 'State', brief: true, key: stateKey, text: health, hover: health },
  client,
  path,
  {
    id: 'rtt',
    title: 'RTT',
    figures: true,
    key: ({ conn }) => conn.heartbeat.rtt_s,
    text: ({ conn }) => short(conn.heartbeat.rtt_s),
    hover: ({ conn }) => `last ${short(conn.heartbeat.rtt_s)}, lowest ${short(conn.heartbeat.rtt_min_s)}`,
  },
  {
    id: 'idle',
    title: 'Idle',
    figures: true,
    key: (session) => -seen(session),
    text: (session, now) => long(idle(session, now)),
    hover: (session) => `last sign of life ${moment(seen(session))}`,
  },
  {
    id: 'missed',
    title: 'Missed',
    figures: true,
    key: (session) => session.conn.heartbeat.misses * 1e6 + missed(session),
    text: (session) => (missed(session) ? count(missed(session)) : '–'),
    note: ({ conn: { heartbeat } }) => (heartbeat.misses ? `${heartbeat.misses} of ${heartbeat.max}` : ''),
    hover: ({ conn: { heartbeat } }) =>
      `${plural(heartbeat.missed, 'missed beat')}, ${heartbeat.misses} in a row; ${heartbeat.max} in a row end it`,
  },
  {
    id: 'in',
    title: 'In',
    figures: true,
    key: ({ conn }) => conn.in.bytes,
    text: ({ conn }) => bytes(conn.in.bytes),
    hover: ({ conn }) => `${plural(conn.in.msgs, 'message')}, ${plural(conn.in.bytes, 'byte')} from the client`,
  },
  {
    id: 'out',
    title: 'Out',
    figures: true,
    key: ({ conn }) => conn.out.bytes,
    text: ({ conn }) => bytes(conn.out.bytes),
    hover: ({ conn }) => `${plural(conn.out.msgs, 'message')}, ${plural(conn.out.bytes, 'byte')} to the client`,
  },
  {
    id: 'age',
    title: 'Open for',
    figures: true,
    key: ({ conn }) => -conn.opened_at,
    text: ({ conn }, now) => long((conn.closed_at ?? now) - conn.opened_at),
    hover: ({ conn }) => `opened ${moment(conn.opened_at)}`,
  },
];

export const CLOSED = [
  {
    id: 'closed',
    title: 'Closed',
    key: ({ conn }) => conn.closed_at,
    text: ({ conn }, now) => ago(now - conn.closed_at),
    hover: ({ conn }) => moment(conn.closed_at),
    descending: true,
  },
  client,
  path,
  {
    id: 'why',
    title: 'Why',
    key: ({ conn }) => conn.close.sentence,
    text: ({ conn }) => conn.close.sentence,
    hover: ({ conn }) => conn.close.sentence,
  },
  {
    id: 'code',
    title: 'Code',
    figures: true,
    key: ({ conn }) => conn.close.code,
    text: ({ conn }) => String(conn.close.code ?? '–'),
    hover: ({ conn }) => `the client's leg ended with ${conn.close.code}, the app's with ${conn.close.upstream_code}`,
  },
  {
    id: 'lived',
    title: 'Lived',
    figures: true,
    key: ({ conn }) => conn.duration_s,
    text: ({ conn }) => long(conn.duration_s),
    hover: ({ conn }) => `opened ${moment(conn.opened_at)}`,
  },
];

function stateKey(session) {
  return ['missing', 'playing dead', 'closing', 'closed', 'alive'].indexOf(health(session));
}
