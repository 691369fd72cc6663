// A hub that echoes, in the JSON hub protocol: records that end with 0x1e, the handshake first, pings both ways that
// nobody answers.
import { report, serve } from '../serve.js';

const INTERVAL_MS = 500;
const SEPARATOR = '\x1e';
const INVOCATION = 1;
const COMPLETION = 3;
const PING = 6;

serve((socket) => {
  const send = (record) => socket.send(JSON.stringify(record) + SEPARATOR);
  let timer;

  const handshake = () => {
    report('open', {});
    send({});
    timer = setInterval(() => send({ type: PING }), INTERVAL_MS);
  };
  const records = {
    [INVOCATION]: ({ invocationId, arguments: [data] }) => {
      report('message', { data });
      send({ type: COMPLETION, invocationId, result: data });
    },
    [PING]: () => report('beat', {}),
  };

  socket.on('message', (data) => {
    for (const text of String(data).split(SEPARATOR).filter(Boolean)) {
      const record = JSON.parse(text);
      if (record.protocol) handshake();
      else records[record.type]?.(record);
    }
  });
  socket.on('close', () => clearInterval(timer));
});
