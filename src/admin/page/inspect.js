// The inspect page: events and lists update `sessions`; the visible part is drawn from there, at most once a frame.
import { CLOSED, OPEN } from './columns.js';
import { Details } from './details.js';
import { Announcer, Kill, askToken, toast } from './dialogs.js';
import { by, element, setText } from './dom.js';
import { Api, Feed } from './feed.js';
import { count, plural, setting } from './format.js';
import { Lists } from './lists.js';
import { Overview } from './overview.js';
import { Sessions } from './sessions.js';
import { Table } from './table.js';

// In milliseconds: the time for events in one frame; the interval between changes of the rows, and of their order; the
// time for which rows stay in place after the pointer has moved over them.
const BUDGET = 8;
const ROWS_EVERY = 250;
const ORDER_EVERY = 2000;
const HELD = 2500;

const narrow = matchMedia('(max-width: 62rem)');
const sessions = new Sessions();
const overview = new Overview();
const announcer = new Announcer();
const api = new Api(askToken);
const killed = new Set();

let info = null;
// The proxy's clock minus the browser's, in seconds.
let ahead = 0;
let generation = null;
let tab = 'open';
let loaded = false;
const sorts = { open: { id: 'age', descending: false }, closed: { id: 'closed', descending: true } };
const columns = { open: OPEN, closed: CLOSED };

const now = () => Date.now() / 1000 + ahead;
const clock = (time) => (ahead = time - Date.now() / 1000);

// --- Drawing

const inbox = [];
let scheduled = false;
let fresh = true;
let viewed = { version: -1, at: 0 };
let pointedAt = -HELD;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(frame);
}

// Schedules a frame in `milliseconds`.
function later(milliseconds) {
  setTimeout(schedule, milliseconds);
}

function frame(time) {
  scheduled = false;
  read(BUDGET);
  if (sessions.settle(time)) later(ROWS_EVERY);
  const held = time - pointedAt < HELD;
  const moved = sessions.version !== viewed.version;
  const due = viewed.at + (moved ? ROWS_EVERY : ORDER_EVERY);
  if (fresh || (!held && time >= due)) {
    viewed = { version: sessions.version, at: time };
    view();
  } else if (moved) {
    later(Math.max(held ? ROWS_EVERY : 0, due - time));
  }
  const at = now();
  table.render(at);
  details.render(at, generation);
  if (inbox.length) schedule();
}

// Handles events from the inbox for at most `budget` milliseconds.
function read(budget) {
  const began = performance.now();
  let taken = 0;
  while (taken < inbox.length && (taken % 16 || performance.now() - began < budget)) {
    const [name, data] = inbox[taken];
    taken += 1;
    events[name]?.(data);
  }
  inbox.splice(0, taken);
}

function view() {
  const { column } = table;
  const text = by('search').value;
  const missing = by('missing').checked;
  const rows = sessions.view({ closed: tab === 'closed', text, missing, key: column.key, descending: table.sort.descending });
  table.show(rows, fresh);
  fresh = false;
  const [open, closed] = [sessions.open, sessions.closed.size];
  setText(by('n-open'), count(open));
  setText(by('n-closed'), count(closed));
  const narrowed = text.trim() !== '' || missing;
  setText(by('shown'), narrowed ? `${count(rows.length)} of ${count(tab === 'open' ? open : closed)}` : '');
  document.title = loaded ? `${count(open)} open – pulsegate` : 'pulsegate';
  empty(rows.length === 0, narrowed);
}

// Explains an empty table.
function empty(nothing, narrowed) {
  const box = by('empty');
  const kind = !nothing || !loaded ? 'none' : narrowed ? 'search' : tab;
  box.hidden = kind === 'none';
  // Part of the key, because the address arrives later than the empty list.
  const at = address();
  const shown = `${kind} ${at}`;
  if (box.dataset.shown === shown) return;
  box.dataset.shown = shown;
  box.replaceChildren();
  if (kind === 'search') {
    const clear = element('button', '', 'Show all');
    clear.addEventListener('click', clearSearch);
    box.append(element('p', 'first', 'Nothing matches.'), clear);
  } else if (kind === 'closed') {
    box.append(element('p', 'first', 'Nothing has closed yet.'));
  } else if (kind === 'open') {
    const page = element('a', '', `https://${at}/`);
    page.href = `https://${at}/`;
    page.rel = 'noopener';
    box.append(
      element('p', 'first', 'No WebSocket yet: open ', element('code', '', `wss://${at}/`)),
      element('p', '', 'or, in a browser, your app’s page at ', page),
    );
  }
}

// Returns the host and port that clients connect to, as written on this machine.
function address() {
  const listen = String([info?.listen ?? ''].flat()[0]);
  const port = /:(\d+)$/.exec(listen)?.[1];
  const host = listen.slice(0, port ? -port.length - 1 : undefined);
  const here = ['', '0.0.0.0', '[::]', '127.0.0.1', '[::1]'].includes(host) ? location.hostname || 'localhost' : host;
  return port && port !== '443' ? `${here === '127.0.0.1' ? 'localhost' : here}:${port}` : here;
}

// --- Events

const events = {
  open: (conn) => sessions.tell(conn, conn.opened_at),
  close(conn) {
    const session = sessions.close(conn, performance.now());
    if (!session) return;
    announcer.closed(session);
    if (killed.delete(conn.id)) toast(`${conn.client}: ${conn.close.sentence}`, 'good');
  },
  miss(event) {
    overview.missed(event.at);
    sessions.miss(event);
  },
  lost: () => lists.resync(),
  stats(sample) {
    clock(sample.at);
    overview.stats(sample);
    overview.render(now());
    drain(sample);
    if (generation !== null && sample.generation > generation) {
      toast(`The configuration was reloaded: generation ${sample.generation}. Sessions keep the one they were opened under.`);
    }
    generation = sample.generation;
  },
};

function drain({ phase, draining, open }) {
  const banner = by('drain');
  banner.hidden = !draining;
  if (!draining) return;
  const left = plural(open, 'connection');
  const words = {
    announced: `Draining begins: the proxy still accepts connections until load balancers notice. ${left} open.`,
    drained: 'Drained: no connection is left.',
    aborting: `Draining was cut short; ${left} are being dropped.`,
  };
  setText(banner, words[phase] ?? `Draining: no new connections are accepted, and ${left} are being closed one by one.`);
}

function link(state, text) {
  by('link').dataset.state = state;
  setText(by('link'), text);
}

const feed = new Feed(api, {
  async connecting() {
    const answer = await api.get('/v1/info');
    const another = info && (info.pid !== answer.pid || info.started_at !== answer.started_at);
    info = answer;
    clock(answer.now);
    if (another) {
      feed.forget();
      sessions.clear();
      overview.clear();
      details.hide();
      generation = null;
      toast('The proxy is another process than before; the data of the previous one was discarded.');
    }
    const upstreams = [info.upstreams ?? []].flat().join(', ');
    setText(by('about'), `${info.version}${upstreams && ` in front of ${upstreams}`}`);
    by('about').title = `process ${info.pid}, listening on ${info.listen}`;
    if (by('dev').hidden === info.dev) {
      by('dev').hidden = !info.dev;
      document.body.classList.toggle('is-dev', info.dev);
      shape();
    }
    fresh = true;
    schedule();
  },
  connected() {
    link('live', 'live');
    by('lost').hidden = true;
    lists.resync();
  },
  lost(milliseconds) {
    link('lost', 'not connected');
    lists.stop();
    by('lost').hidden = false;
    setText(by('lost-text'), `No answer from the proxy: what you see may be old. Trying again in ${setting(milliseconds / 1000)}.`);
  },
  event(name, data) {
    inbox.push([name, data]);
    // A hidden page gets no animation frames.
    if (document.hidden) read(Infinity);
    else schedule();
  },
});

const lists = new Lists(api, sessions, (time) => {
  clock(time);
  loaded = true;
  schedule();
});

// --- User actions

const kill = new Kill(async (session, code, reason) => {
  killed.add(session.id);
  try {
    await api.post(`/v1/connections/${session.id}/close`, { code, reason });
  } catch (error) {
    killed.delete(session.id);
    throw error;
  }
  toast(`Closing ${session.conn.client}…`);
});

async function playDead(session) {
  const { heartbeat, client } = session.conn;
  try {
    await api.post(`/v1/connections/${session.id}/simulate-dead`, {});
    session.dead = true;
    const bound = heartbeat.interval_s + heartbeat.timeout_s * Math.max(1, heartbeat.max);
    toast(`Input from ${client} is ignored from now on. It will be detected as dead within ${setting(bound)}.`);
  } catch (error) {
    toast(error.message, 'bad');
  }
  schedule();
}

const actions = {
  kill: (session) => session.conn.state === 'open' && (kill.ask(session), true),
  dead: (session) => info?.dev && session.conn.state === 'open' && !session.dead && (playDead(session), true),
};

const details = new Details(by('details'), {
  get dev() {
    return Boolean(info?.dev);
  },
  close: hideDetails,
  kill: actions.kill,
  playDead,
});

function openDetails(session) {
  details.show(session);
  document.body.classList.add('has-details');
  schedule();
  follow();
  if (narrow.matches) details.focus();
}

function hideDetails() {
  details.hide();
  document.body.classList.remove('has-details');
  schedule();
  table.focus();
}

const table = new Table(by('grid'), {
  sorted() {
    sorts[tab] = table.sort;
    by('sorter').value = `${table.sort.descending ? '-' : ''}${table.sort.id}`;
    fresh = true;
    schedule();
  },
  activated(session) {
    if (session && details.shown && !narrow.matches) {
      details.show(session);
      follow();
    }
    schedule();
  },
  opened: openDetails,
  key(key, session) {
    if (key === 'Enter') return openDetails(session), true;
    return { k: actions.kill, d: actions.dead }[key]?.(session);
  },
});

// Gives the table the columns and actions of the current tab.
function shape() {
  const offered = [
    { name: 'dead', label: 'Dead', hover: () => 'Simulate a dead client (d)', shown: isOpen, run: actions.dead },
    { name: 'kill', label: 'Close', hover: () => 'Close this connection (k)', shown: isOpen, run: actions.kill },
  ];
  table.shape(tab, columns[tab], tab === 'open' ? offered.filter(({ name }) => name !== 'dead' || info?.dev) : [], sorts[tab]);
  const options = columns[tab].flatMap(({ id, title }) => [new Option(`${title} ↑`, id), new Option(`${title} ↓`, `-${id}`)]);
  by('sorter').replaceChildren(...options);
  by('sorter').value = `${sorts[tab].descending ? '-' : ''}${sorts[tab].id}`;
  fresh = true;
  schedule();
}

const isOpen = (session) => session.conn.state === 'open' && !session.dead;

function turnTo(name) {
  tab = name;
  for (const one of ['open', 'closed']) {
    by(`tab-${one}`).setAttribute('aria-selected', one === name);
    by(`tab-${one}`).tabIndex = one === name ? 0 : -1;
  }
  shape();
}

function clearSearch() {
  by('search').value = '';
  by('missing').checked = false;
  fresh = true;
  schedule();
}

// Fetches the diagnosis of the session in the detail panel: once a second while it is live, and every five seconds
// after it has closed, because its client may reconnect. Fetches nothing while the page is hidden.
let following = 0;
async function follow() {
  const turn = (following += 1);
  for (;;) {
    const { session } = details;
    if (turn !== following || !session) return;
    if (!document.hidden && by('link').dataset.state === 'live') {
      try {
        const { connection, story } = await api.get(`/v1/connections/${session.id}/diagnosis`);
        session.story = story;
        sessions.tell(connection, now());
        schedule();
      } catch (error) {
        if (error.status === 404) return;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, session.closed ? 5000 : 1000));
  }
}

for (const name of ['open', 'closed']) {
  by(`tab-${name}`).addEventListener('click', () => turnTo(name));
  by(`tab-${name}`).addEventListener('keydown', ({ key }) => {
    if (key !== 'ArrowLeft' && key !== 'ArrowRight') return;
    const other = name === 'open' ? 'closed' : 'open';
    turnTo(other);
    by(`tab-${other}`).focus();
  });
}
by('search').addEventListener('input', () => {
  fresh = true;
  schedule();
});
by('search').addEventListener('keydown', (event) => {
  if (event.key !== 'ArrowDown' && event.key !== 'Enter') return;
  event.preventDefault();
  fresh = true;
  view();
  table.focus();
  if (table.rows.length && !table.active) table.activate(table.rows[0].id);
});
by('missing').addEventListener('change', () => {
  fresh = true;
  schedule();
});
by('sorter').addEventListener('change', ({ target }) => {
  table.sortBy({ id: target.value.replace('-', ''), descending: target.value.startsWith('-') });
  sorts[tab] = table.sort;
  fresh = true;
  schedule();
});
by('retry').addEventListener('click', () => feed.retry());
by('keys').addEventListener('click', () => by('help').showModal());
by('grid').addEventListener('pointermove', () => (pointedAt = performance.now()));
by('grid').addEventListener('pointerleave', () => (pointedAt = -HELD));
by('grid').addEventListener('focus', () => {
  if (!table.active && table.rows.length) table.activate(table.rows[0].id, false);
});
// Keys passed to the table while no element has the focus, as on a page just loaded. Keys that change a connection need
// an active row.
const moves = new Set(['ArrowDown', 'ArrowUp', 'PageDown', 'PageUp', 'Home', 'End', 'Enter']);
const changes = new Set(['k', 'd']);

const keys = {
  '/': () => (by('search').focus(), by('search').select()),
  '?': () => by('help').showModal(),
  o: () => (turnTo('open'), table.focus()),
  c: () => (turnTo('closed'), table.focus()),
  t: () => by('theme').click(),
  k: () => details.shown && actions.kill(details.session),
  d: () => details.shown && actions.dead(details.session),
};

addEventListener('keydown', (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector('dialog[open]')) return;
  if (event.key === 'Escape') {
    if (document.activeElement === by('search')) (by('search').value ? clearSearch() : table.focus());
    else if (details.shown) hideDetails();
    else clearSearch();
    return;
  }
  const chosen = table.active;
  if (event.target === document.body && (moves.has(event.key) || (chosen && !details.shown && changes.has(event.key)))) {
    // The focus activates the first row, so the first arrow must not move on.
    table.focus();
    if (chosen || event.key !== 'ArrowDown') table.key(event);
    else event.preventDefault();
    return;
  }
  if (event.target.closest('input, select, textarea') || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
addEventListener('scroll', schedule, { capture: true, passive: true });
addEventListener('resize', schedule);
document.addEventListener('visibilitychange', schedule);
// Relative times change every second.
setInterval(schedule, 1000);

shape();
lists.run();
feed.run();
