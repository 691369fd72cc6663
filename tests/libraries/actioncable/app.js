// An echo channel of Action Cable: a welcome, pings that get no answer, a subscription that is confirmed.
import { report, serve } from '../serve.js';

const INTERVAL_MS = 500;

serve((socket) => {
  const send = (message) => socket.send(JSON.stringify(message));
  report('open', {});
  send({ type: 'welcome' });
  const timer = setInterval(() => send({ type: 'ping', message: Math.floor(Date.now() / 1000) }), INTERVAL_MS);

  const commands = {
    subscribe: ({ identifier }) => send({ identifier, type: 'confirm_subscription' }),
    message: ({ identifier, data }) => {
      const { text } = JSON.parse(data);
      report('message', { data: text });
      send({ identifier, message: { text } });
    },
  };

  socket.on('message', (message) => {
    const { command, ...fields } = JSON.parse(message);
    commands[command](fields);
  });
  socket.on('close', () => clearInterval(timer));
});
