// A Colyseus server with a room that echoes, and keeps the seats of clients that may come back.
import { createServer } from 'node:http';

import { Room, Server } from '@colyseus/core';
import { WebSocketTransport } from '@colyseus/ws-transport';

import { report } from '../serve.js';

const SEAT_KEPT_S = 60;

class Echo extends Room {
  onCreate() {
    this.onMessage('echo', (client, data) => {
      report('message', { data });
      client.send('echo', data);
    });
  }

  onJoin() {
    report('open', {});
  }

  async onLeave(client, consented) {
    report('close', { consented });
    try {
      await this.allowReconnection(client, SEAT_KEPT_S);
      report('open', {});
    } catch {
      report('seat given up', {});
    }
  }
}

const server = createServer();
const colyseus = new Server({ transport: new WebSocketTransport({ server }), greet: false });
colyseus.define('echo', Echo);
await colyseus.listen(0, '127.0.0.1');
console.log(`listening ${server.address().port}`);
