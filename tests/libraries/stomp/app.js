// A broker that returns every message to its sender, with heart-beats as agreed with the client.
import { report, serve } from '../serve.js';
import { EOL, frame, frames } from './frame.js';

const INTERVAL_MS = 500;

serve((socket) => {
  const subscriptions = new Map();
  let timer;

  const commands = {
    CONNECT: ({ 'heart-beat': offered }) => {
      const [, wanted] = offered.split(',').map(Number);
      report('open', { offered });
      socket.send(frame('CONNECTED', { version: '1.2', 'heart-beat': `${INTERVAL_MS},${INTERVAL_MS}` }));
      if (wanted !== 0) timer = setInterval(() => socket.send(EOL), Math.max(wanted, INTERVAL_MS));
    },
    SUBSCRIBE: ({ id, destination }) => subscriptions.set(destination, id),
    SEND: ({ destination }, data) => {
      report('message', { data });
      const headers = { subscription: subscriptions.get(destination), 'message-id': 1, destination };
      socket.send(frame('MESSAGE', headers, data));
    },
  };

  socket.on('message', (message) => {
    for (const received of frames(String(message))) {
      if (received) commands[received.command](received.headers, received.body);
      else report('beat', {});
    }
  });
  socket.on('close', () => clearInterval(timer));
});
