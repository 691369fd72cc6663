// A Yjs server: one document for each path, as in y-websocket's own server. Text written into the map `up` of the
// document `room` returns in its map `down`.
import { createServer } from 'node:http';

import { getYDoc, setupWSConnection } from '@y/websocket-server/utils';
import { WebSocketServer } from 'ws';

import { listen } from '../../express/report.js';
import { report } from '../serve.js';

const room = getYDoc('room');
const up = room.getMap('up');
up.observe(() => {
  const data = up.get('text');
  report('message', { data });
  room.getMap('down').set('text', data);
});

const server = createServer();
new WebSocketServer({ server }).on('connection', (socket, request) => {
  setupWSConnection(socket, request);
  report('open', {});
  // The library's own handler has run: it drops the connection, and the presence of its user.
  socket.on('close', (code, reason) => {
    const present = room.awareness.getStates().size;
    report('close', { code, reason: String(reason), connections: room.conns.size, present });
  });
});
listen(server);
