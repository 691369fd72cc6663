// A server of the Pusher protocol, version 7, that returns every client event to its sender.
import { report, serve } from '../serve.js';

const ACTIVITY_TIMEOUT_S = 2;

serve((socket) => {
  const send = (event, data, channel) => socket.send(JSON.stringify({ event, channel, data: JSON.stringify(data) }));
  const events = {
    'pusher:ping': () => {
      report('beat', {});
      send('pusher:pong', {});
    },
    'pusher:subscribe': ({ data: { channel } }) => {
      report('open', {});
      send('pusher_internal:subscription_succeeded', {}, channel);
    },
    'client-echo': ({ channel, data: { data } }) => {
      report('message', { data });
      send('client-echo', { data }, channel);
    },
  };

  socket.on('message', (message) => {
    const { event, ...fields } = JSON.parse(message);
    events[event](fields);
  });
  send('pusher:connection_established', { socket_id: '1.1', activity_timeout: ACTIVITY_TIMEOUT_S });
});
