// The detail panel of one session: plot, figures, close.
import { drawn, element, setText } from './dom.js';
import { ago, bytes, long, moment, plural, setting, short, timeOfDay } from './format.js';
import { Plot, nearest } from './plot.js';

const SHOWN = 300;

// Returns the facts of a session in groups: [heading, [[term, text, exact text on hover]]].
function facts({ conn }, now, generation) {
  const { heartbeat } = conn;
  const known = (rows) => rows.filter(([, text]) => text !== null && text !== undefined && text !== '');
  const traffic = (way) => `${plural(way.msgs, 'message')}, ${bytes(way.bytes)}`;
  const due = heartbeat.next_deadline_at;
  return [
    ['Heartbeat', known([
      ['Kind', heartbeat.profile ? `${heartbeat.mode}, ${heartbeat.profile}` : heartbeat.mode],
      ['Window', heartbeat.interval_s !== null && `${setting(heartbeat.interval_s)} of silence, ${setting(heartbeat.timeout_s)} to answer`],
      ['Round trip', roundTrip(heartbeat)],
      ['Missed', `${heartbeat.missed} in all; ${heartbeat.misses} of ${heartbeat.max} in a row`],
      ['Next check', conn.state === 'open' && due !== null ? (due > now ? `in ${setting(Math.max(0.1, due - now))}` : 'now') : null, moment(due)],
      ['Last sign of life', life(conn, now), moment(conn.last_seen_at)],
    ].map(([term, text, hover]) => [term, text || null, hover]))],
    ['Traffic', known([
      ['From the client', traffic(conn.in), plural(conn.in.bytes, 'byte')],
      ['To the client', traffic(conn.out), plural(conn.out.bytes, 'byte')],
    ])],
    ['Connection', known([
      ['Client', conn.client],
      ['User agent', conn.user_agent],
      ['Path', conn.path],
      ['Route', conn.route],
      ['Subprotocol', conn.subprotocol],
      ['Protocols', [conn.protocol === 'h2' ? 'HTTP/2' : 'HTTP/1.1', conn.tls?.version, conn.tls?.group].filter(Boolean).join(', ')],
      ['Asked for', conn.sni],
      ['Opened', `${moment(conn.opened_at)} (${ago(now - conn.opened_at)})`],
      ['Closed', conn.closed_at ? `${moment(conn.closed_at)} (after ${long(conn.duration_s)})` : null],
      ['Configuration', conn.config_generation === generation || generation === null ? `generation ${conn.config_generation}` : `generation ${conn.config_generation}, an older one (now ${generation})`],
      ['Id', conn.id],
      ['Trace', conn.trace_id],
    ])],
  ];
}

function roundTrip({ rtt_s: last, rtt_min_s: lowest }) {
  if (last === null) return 'not measured';
  return lowest === null ? short(last) : `${short(last)}, lowest ${short(lowest)}`;
}

function life({ closed_at: closedAt, last_seen_at: seenAt }, now) {
  if (seenAt === null) return null;
  return closedAt ? `${long(closedAt - seenAt)} before the end` : ago(now - seenAt);
}

// The topics of the story that no other group shows, with their terms.
const TOPICS = { next: 'Next', held: 'Held', client: 'Client', app: 'App', before: 'Before', after: 'After' };

// Returns the sentences of the session's diagnosis, if they are loaded.
function story({ story: lines = [] }) {
  const rows = Object.entries(TOPICS).map(([topic, term]) => [term, lines.find((line) => line.topic === topic)?.text]);
  const known = rows.filter(([, text]) => text);
  return known.length ? [['Story', known]] : [];
}

function ending({ close }) {
  if (!close) return [];
  return [['How it ended', [
    ['By', { client: 'the client', upstream: 'the app', proxy: 'pulsegate' }[close.initiator] ?? close.initiator],
    ['Reason', [close.reason, close.detail].filter(Boolean).join(': ')],
    ['Code', String(close.code ?? '–')],
    ['Code at the app', String(close.upstream_code ?? '–')],
    ['Text', close.text],
  ].filter(([, text]) => text)]];
}

export class Details {
  session = null;
  #panel;
  #act;
  #built = null;

  // `act` has `close()`, `kill(session)`, `playDead(session)` and `dev`, which is true if the latter is offered.
  constructor(panel, act) {
    this.#panel = panel;
    this.#act = act;
  }

  get shown() {
    return this.session !== null;
  }

  show(session) {
    if (this.session?.id !== session.id) this.#built = null;
    this.session = session;
    this.#panel.hidden = false;
  }

  hide() {
    this.session = null;
    this.#built = null;
    this.#panel.hidden = true;
    this.#panel.replaceChildren();
  }

  focus() {
    this.#panel.focus({ preventScroll: true });
  }

  // Updates the panel. Elements are rebuilt only when the set of terms changes, so that a text selection survives.
  render(now, generation) {
    const { session } = this;
    if (!session) return;
    const groups = [...ending(session.conn), ...story(session), ...facts(session, now, generation)];
    const shape = JSON.stringify([session.id, groups.map(([heading, rows]) => [heading, rows.map(([term]) => term)])]);
    if (this.#built?.shape !== shape) this.#build(shape, groups);
    const { state, values, sentence, kill, dead } = this.#built;
    setText(state, session.health);
    state.dataset.health = session.health;
    this.#panel.dataset.health = session.health;
    setText(sentence, session.conn.close?.sentence ?? '');
    sentence.hidden = !session.conn.close;
    kill.hidden = session.conn.state !== 'open';
    dead.hidden = kill.hidden || session.dead || !this.#act.dev;
    groups.flatMap(([, rows]) => rows).forEach(([, text, hover], index) => {
      setText(values[index], text);
      if (hover) values[index].title = hover;
    });
    this.#plot(now);
  }

  #build(shape, groups) {
    const { session } = this;
    const focused = this.#panel.contains(document.activeElement) && document.activeElement !== this.#panel;
    const state = element('span', 'state');
    const shut = button('icon', '×', () => this.#act.close());
    shut.setAttribute('aria-label', 'Close the details');
    shut.title = 'Close the details (Esc)';
    const sentence = element('p', 'sentence');
    const kill = button('danger', 'Close it…', () => this.#act.kill(this.session));
    kill.title = 'Asks first (k)';
    const dead = button('', 'Simulate a dead client', () => this.#act.playDead(this.session));
    dead.title = 'From then on nothing that the client sends is read (d)';
    const read = element('output', '');
    const svg = drawn('svg', { class: 'plot', role: 'img' });
    const values = [];
    const lists = groups.flatMap(([heading, rows]) => {
      const list = element('dl', heading === 'Story' ? 'facts story' : 'facts');
      for (const [term, text] of rows) {
        const value = element('dd', '', text);
        values.push(value);
        list.append(element('div', '', element('dt', '', term), value));
      }
      return [element('h3', '', heading), list];
    });
    this.#panel.replaceChildren(
      element('div', 'title', element('div', '', state, element('h2', '', session.conn.path), element('p', 'who', session.conn.client)), shut),
      sentence,
      element('div', 'buttons', kill, dead),
      element('figure', 'chart', element('figcaption', '', element('span', '', 'Round trips'), element('span', 'legend miss', 'missed beat'), read), svg),
      ...lists,
    );
    this.#built = { shape, state, values, sentence, kill, dead, read, plot: new Plot(svg, (at) => this.#pointed(at)) };
    if (focused) this.focus();
  }

  #plot(now) {
    const { conn, rtts, misses } = this.session;
    const to = conn.closed_at ?? now;
    const earliest = Math.min(rtts[0]?.at ?? to, misses[0] ?? to);
    const from = Math.max(to - SHOWN, Math.min(earliest - 1, to - 30));
    const points = rtts.filter(({ at }) => at >= from);
    const marks = misses.filter((at) => at >= from).map((at) => ({ at }));
    const last = points.at(-1);
    this.#built.plot.draw({
      lines: [{ name: 'p50', points }],
      marks,
      from,
      to,
      end: conn.closed_at ? 'the end' : 'now',
      label: `Round trips: ${roundTrip(conn.heartbeat)}; ${plural(marks.length, 'missed beat')} in sight`,
    });
    if (!this.#built.pointing) setText(this.#built.read, last ? `last ${short(last.s)}` : '');
  }

  #pointed(at) {
    if (!this.#built || !this.session) return;
    this.#built.pointing = at !== null;
    if (at === null) return;
    const near = nearest(this.session.rtts, at);
    setText(this.#built.read, near ? `${timeOfDay(near.at)}: ${short(near.s)}` : '');
  }
}

function button(className, text, run) {
  const made = element('button', className, text);
  made.type = 'button';
  made.addEventListener('click', run);
  return made;
}
