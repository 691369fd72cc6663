// An echo hub, in the hub protocol that the handshake selects, JSON or MessagePack; it sends pings and answers none.
import { NullLogger } from '@microsoft/signalr';
import { MessagePackHubProtocol } from '@microsoft/signalr-protocol-msgpack';

import { report, serve } from '../serve.js';

const INTERVAL_MS = 500;
const SEPARATOR = '\x1e';
const INVOCATION = 1;
const COMPLETION = 3;
const PING = 6;

const records = (data) => String(data).split(SEPARATOR).filter(Boolean).map((text) => JSON.parse(text));
const messagePack = new MessagePackHubProtocol();
const protocols = {
  json: { read: records, write: (record) => JSON.stringify(record) + SEPARATOR },
  messagepack: {
    read: (data) => messagePack.parseMessages(Uint8Array.from(data).buffer, NullLogger.instance),
    write: (record) => new Uint8Array(messagePack.writeMessage(record)),
  },
};

serve((socket) => {
  let protocol;
  let timer;

  const send = (record) => socket.send(protocol.write(record));
  const handshake = (name) => {
    protocol = protocols[name];
    report('open', { protocol: name });
    socket.send(protocols.json.write({}));
    timer = setInterval(() => send({ type: PING }), INTERVAL_MS);
  };
  const handlers = {
    [INVOCATION]: ({ invocationId, arguments: [data] }) => {
      report('message', { data });
      send({ type: COMPLETION, invocationId, result: data });
    },
    [PING]: () => report('beat', {}),
  };

  socket.on('message', (data) => {
    if (!protocol) return handshake(records(data)[0].protocol);
    for (const record of protocol.read(data)) handlers[record.type]?.(record);
  });
  socket.on('close', () => clearInterval(timer));
});
