// What the page knows of every session. Nothing in here touches the document.

// How long a row stays in sight after its session has closed. In milliseconds.
const LINGER = 1600;
// Round trips and misses that are kept of one session, for its plot.
const HISTORY = 240;

// One session, from its first mention until its record is dropped.
export class Session {
  constructor(conn) {
    this.id = conn.id;
    this.rtts = []; // { at, s }
    this.misses = []; // unix seconds
    this.leftAt = 0; // performance.now() of its close, if that was seen here
    this.dead = false; // somebody here had it play dead
    this.story = []; // { topic, text }, while its details are shown
    this.haystack = haystack(conn);
    this.clientKey = conn.client.replace(/\d+/g, (digits) => digits.padStart(5, '0'));
    this.update(conn, 0);
  }

  get closed() {
    return this.conn.state === 'closed';
  }

  // How it is, in a word.
  get health() {
    const { state, heartbeat } = this.conn;
    if (state !== 'open') return state;
    if (this.dead) return 'playing dead';
    return heartbeat.misses > 0 ? 'missing' : 'alive';
  }

  // Takes a newer record, which was true at `at` (unix seconds).
  update(conn, at) {
    this.conn = conn;
    this.seenAt = at;
    const rtt = conn.heartbeat.rtt_s;
    // A round trip is told again until there is a new one.
    if (rtt !== null && rtt !== this.rtts.at(-1)?.s) {
      this.rtts.push({ at: at || (conn.last_seen_at ?? conn.opened_at), s: rtt });
      if (this.rtts.length > HISTORY) this.rtts.shift();
    }
  }

  missed({ misses, max, at }) {
    const { heartbeat } = this.conn;
    this.misses.push(at);
    if (this.misses.length > HISTORY) this.misses.shift();
    Object.assign(heartbeat, { misses, max, missed: heartbeat.missed + 1 });
  }
}

const haystack = ({ id, client, path, route, user_agent, subprotocol, sni, protocol, trace_id }) =>
  [id, client, path, route, user_agent, subprotocol, sni, protocol, trace_id].filter(Boolean).join('\n').toLowerCase();

// All of them: the live ones, and the last of those that have closed.
export class Sessions {
  live = new Map();
  closed = new Map(); // in the order in which they closed
  keep = 1000;
  // Grows when a row comes or goes, so that a view knows when it is out of date.
  version = 0;

  // What a page of the list or an event says of a session. What has closed stays closed: a list may be older than the
  // event.
  tell(conn, at) {
    if (conn.state === 'closed') return this.close(conn);
    if (this.closed.has(conn.id)) return null;
    let session = this.live.get(conn.id);
    if (session) {
      session.update(conn, at);
    } else {
      session = new Session(conn);
      session.update(conn, at);
      this.live.set(conn.id, session);
      this.version += 1;
    }
    return session;
  }

  // A session has closed, now or earlier; null if that was known.
  close(conn, now = 0) {
    if (this.closed.has(conn.id)) return null;
    const session = this.live.get(conn.id) ?? new Session(conn);
    session.update(conn, conn.closed_at);
    if (now && this.live.has(conn.id)) session.leftAt = now;
    else this.live.delete(conn.id);
    this.closed.set(conn.id, session);
    while (this.closed.size > this.keep) this.closed.delete(this.closed.keys().next().value);
    this.version += 1;
    return session;
  }

  miss(told) {
    const session = this.live.get(told.id);
    session?.missed(told);
    return session;
  }

  // The last ones closed, newest first, as a list that was fetched; what is here already stays.
  fill(conns) {
    for (const conn of conns) {
      this.live.delete(conn.id);
      if (!this.closed.has(conn.id)) this.closed.set(conn.id, new Session(conn));
    }
    const inOrder = [...this.closed.values()].sort((a, b) => a.conn.closed_at - b.conn.closed_at);
    this.closed = new Map(inOrder.slice(-this.keep).map((session) => [session.id, session]));
    this.version += 1;
  }

  // Drops what a complete list that began at `since` did not have; says whether there was any.
  prune(since) {
    let gone = false;
    for (const session of this.live.values()) {
      if (session.closed || session.seenAt >= since || session.conn.opened_at >= since) continue;
      this.live.delete(session.id);
      gone = true;
    }
    if (gone) this.version += 1;
    return gone;
  }

  // Lets go of rows whose sessions have closed a moment ago; says whether more are to go.
  settle(now) {
    let waiting = false;
    for (const session of this.live.values()) {
      if (!session.leftAt) continue;
      if (now - session.leftAt < LINGER) {
        waiting = true;
      } else {
        this.live.delete(session.id);
        session.leftAt = 0;
        this.version += 1;
      }
    }
    return waiting;
  }

  clear() {
    this.live.clear();
    this.closed.clear();
    this.version += 1;
  }

  find(id) {
    return this.live.get(id) ?? this.closed.get(id);
  }

  // How many are open, without those whose rows only linger.
  get open() {
    let open = 0;
    for (const session of this.live.values()) open += session.closed ? 0 : 1;
    return open;
  }

  // Those that match every word, in order. `key(session)` gives a number or a text; unknown ones come last either way.
  view({ closed, text, missing, key, descending }) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (const session of (closed ? this.closed : this.live).values()) {
      if (missing && !(closed ? session.conn.heartbeat.missed : session.conn.heartbeat.misses)) continue;
      if (words.every((word) => session.haystack.includes(word) || sentenceHas(session, word))) {
        found.push({ session, key: key(session) });
      }
    }
    const sign = descending ? -1 : 1;
    found.sort((a, b) => compare(a.key, b.key, sign) || compare(a.session.id, b.session.id, sign));
    return found.map(({ session }) => session);
  }
}

const sentenceHas = ({ conn }, word) => Boolean(conn.close?.sentence?.toLowerCase().includes(word));

function compare(a, b, sign) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return a < b ? -sign : sign;
}
