// A client of Colyseus that returns to its seat, as the documentation of this version describes.
import { setTimeout } from 'node:timers/promises';

import { Client } from 'colyseus.js';

import { report, takeOrders, url } from '../../libraries/page.js';

const client = new Client(url.replace(/^ws/, 'http').replace(/\/$/, ''));
let room = enter(await client.joinOrCreate('echo'));

function enter(entered) {
  report('open', {});
  entered.onMessage('echo', (data) => report('message', { data }));
  entered.onLeave(async (code) => {
    report('close', { code });
    room = enter(await reconnect(entered.reconnectionToken));
  });
  return entered;
}

async function reconnect(token) {
  for (;;) {
    try {
      return await client.reconnect(token);
    } catch ({ message }) {
      report('error', { message });
      await setTimeout(500);
    }
  }
}

takeOrders({ send: (text) => room.send('echo', text) });
