// The model: the data of every session. This module does not access the document.

// The time for which a row stays visible after its session has closed, in milliseconds.
const LINGER = 1600;
// The maximum number of round trips, and of misses, kept for the plot of one session.
const HISTORY = 240;

// One session, from its first record until it is dropped.
export class Session {
  constructor(conn) {
    this.id = conn.id;
    this.rtts = []; // { at, s }
    this.misses = []; // unix seconds
    this.leftAt = 0; // performance.now() of its close, if it closed while listed; otherwise 0
    this.dead = false; // its death is simulated from this page
    this.story = []; // { topic, text }, fetched for the detail panel
    this.haystack = haystack(conn);
    this.clientKey = conn.client.replace(/\d+/g, (digits) => digits.padStart(5, '0'));
    this.update(conn, 0);
  }

  get closed() {
    return this.conn.state === 'closed';
  }

  // The state shown: alive, missing, playing dead, closing or closed.
  get health() {
    const { state, heartbeat } = this.conn;
    if (state !== 'open') return state;
    if (this.dead) return 'playing dead';
    return heartbeat.misses > 0 ? 'missing' : 'alive';
  }

  // Replaces the record with a newer one of the time `at` (unix seconds).
  update(conn, at) {
    this.conn = conn;
    this.seenAt = at;
    const rtt = conn.heartbeat.rtt_s;
    // Records repeat the last round trip until there is a new one.
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

// The live sessions, and the latest `keep` closed ones.
export class Sessions {
  live = new Map();
  closed = new Map(); // in the order of their closes
  keep = 1000;
  // Increases when a row is added or removed, so that an outdated view can be detected.
  version = 0;

  // Stores a record from a list or an event. A closed session stays closed, because a list may be older than the close
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

  // Stores a closed session. Returns null if it was stored before.
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

  miss(event) {
    const session = this.live.get(event.id);
    session?.missed(event);
    return session;
  }

  // Adds closed sessions from a fetched list; those already stored stay as they are.
  fill(conns) {
    for (const conn of conns) {
      if (this.closed.has(conn.id)) continue;
      // The details may show it: they keep the session, and not its id.
      const session = this.live.get(conn.id) ?? new Session(conn);
      session.update(conn, conn.closed_at);
      this.live.delete(conn.id);
      this.closed.set(conn.id, session);
    }
    const inOrder = [...this.closed.values()].sort((a, b) => a.conn.closed_at - b.conn.closed_at);
    this.closed = new Map(inOrder.slice(-this.keep).map((session) => [session.id, session]));
    this.version += 1;
  }

  // Drops the live sessions that are missing from a complete list begun at `since`. Returns whether there were any.
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

  // Removes the rows of closed sessions after LINGER. Returns whether more remain to be removed.
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

  // The number of open sessions, without closed ones whose rows are still visible.
  get open() {
    let open = 0;
    for (const session of this.live.values()) open += session.closed ? 0 : 1;
    return open;
  }

  // Returns the sessions that match every word, sorted. `key(session)` returns a number or a text; unknown keys sort
  // last in either direction.
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
