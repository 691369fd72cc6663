// A broker of MQTT 5 with the subset that an echo needs. It overrides the keep-alive of its clients. aedes supports
// 3.1.1.
import { parser, writeToStream } from 'mqtt-packet';
import { createWebSocketStream } from 'ws';

import { report } from '../serve.js';

const KEEP_ALIVE_S = 2;
const VERSION = { protocolVersion: 5 };

export function serveVersion5(socket) {
  const stream = createWebSocketStream(socket);
  const write = (packet) => writeToStream(packet, stream, VERSION);
  const packets = {
    connect: () => {
      report('open', {});
      write({ cmd: 'connack', reasonCode: 0, sessionPresent: false, properties: { serverKeepAlive: KEEP_ALIVE_S } });
    },
    subscribe: ({ messageId }) => write({ cmd: 'suback', messageId, granted: [0] }),
    publish: ({ topic, payload }) => {
      report('message', { data: String(payload) });
      write({ cmd: 'publish', topic, payload, qos: 0 });
    },
    pingreq: () => {
      report('beat', {});
      write({ cmd: 'pingresp' });
    },
    disconnect: () => stream.end(),
  };

  const incoming = parser(VERSION).on('packet', (packet) => packets[packet.cmd](packet));
  stream.on('data', (data) => incoming.parse(data));
  stream.on('error', ({ message }) => report('error', { message }));
}
