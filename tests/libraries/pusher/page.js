// A page that subscribes to a channel and sends client events to it. With the flag --node it is a server's client: the
// library's build for Node, with its own WebSocket and no separate network thread; else the build for web workers.
import { createRequire } from 'node:module';

import '../browser.js';
import { flags, report, takeOrders, url } from '../page.js';

globalThis.self = globalThis;
const Pusher = createRequire(import.meta.url)(flags.includes('--node') ? 'pusher-js' : 'pusher-js/worker');

const { hostname, port, pathname } = new URL(url);
const pusher = new Pusher(pathname.split('/').pop(), {
  cluster: '',
  wsHost: hostname,
  wsPort: port,
  wssPort: port,
  forceTLS: url.startsWith('wss:'),
  enabledTransports: ['ws', 'wss'],
});
pusher.connection.bind('message', ({ event }) => event === 'pusher:pong' && report('beat', {}));
// A close is a change of state; some codes are reported as an error, too, before it.
let code = null;
pusher.connection.bind('error', ({ data, error }) => (code = (data ?? error?.data)?.code ?? null));
pusher.connection.bind('state_change', ({ previous, current: state }) => {
  if (previous === 'connected') report('close', { state, code });
});

const channel = pusher.subscribe('echo');
channel.bind('pusher:subscription_succeeded', () => report('open', {}));
channel.bind('client-echo', ({ data }) => report('message', { data }));

takeOrders({ send: (text) => channel.trigger('client-echo', { data: text }) });
