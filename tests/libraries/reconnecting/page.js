// A page that answers "ping" with "pong", and uses a library to reopen its WebSocket.
//
//   node reconnecting/page.js URL --LIBRARY
import '../browser.js';
import { flags, report, takeOrders, url } from '../page.js';

import PartySocket from 'partysocket/ws';
import ReconnectingWebSocket from 'reconnecting-websocket';
import sockette from 'sockette';

// Each with its defaults, except for the delay before it reconnects.
const DELAYS = { minReconnectionDelay: 500, maxReconnectionDelay: 1_000 };
const handlers = {
  onopen: () => report('open', {}),
  onmessage: ({ data }) => {
    if (data === 'ping') return socket.send('pong');
    report('message', { data });
  },
  onclose: ({ code, reason }) => report('close', { code, reason }),
  onerror: ({ message }) => report('error', { message }),
};
const libraries = {
  '--partysocket': () => Object.assign(new PartySocket(url, [], { WebSocket, ...DELAYS }), handlers),
  '--reconnecting-websocket': () => Object.assign(new ReconnectingWebSocket(url, [], { WebSocket, ...DELAYS }), handlers),
  '--sockette': () => sockette(url, { timeout: 500, ...handlers }),
};
const socket = libraries[flags[0]]();

takeOrders({ send: (text) => socket.send(text) });
