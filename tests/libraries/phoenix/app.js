// An echo channel, in the serializer of version 2: [join_ref, ref, topic, event, payload].
import { report, serve } from '../serve.js';

serve((socket) => {
  const responses = {
    heartbeat: () => {
      report('beat', {});
      return {};
    },
    phx_join: () => {
      report('open', {});
      return {};
    },
    echo: ({ data }) => {
      report('message', { data });
      return { data };
    },
  };

  socket.on('message', (message) => {
    const [joinRef, ref, topic, event, payload] = JSON.parse(message);
    const response = responses[event](payload);
    socket.send(JSON.stringify([joinRef, ref, topic, 'phx_reply', { status: 'ok', response }]));
  });
});
