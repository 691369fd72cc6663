// A page that subscribes to a topic and publishes on it. With the flag --node it is a server's client: the library's
// stream for Node, which sends each field of a packet as a message, and has no separate network thread. With --version5
// it announces a keep-alive that its broker overrides, with --silent none.
import '../browser.js';
import { flags, report, takeOrders, url } from '../page.js';

import mqtt from 'mqtt';

const client = mqtt.connect(url, {
  forceNativeWebSocket: !flags.includes('--node'),
  protocolVersion: flags.includes('--version5') ? 5 : 4,
  keepalive: keepAlive(),
});
client.subscribe('echo');
client.on('connect', () => report('open', {}));
client.on('packetreceive', ({ cmd }) => cmd === 'pingresp' && report('beat', {}));
client.on('message', (_topic, payload) => report('message', { data: String(payload) }));
client.on('error', ({ message }) => report('error', { message }));
client.on('close', () => report('close', {}));

takeOrders({ send: (text) => client.publish('echo', text) });

function keepAlive() {
  if (flags.includes('--silent')) return 0;
  return flags.includes('--version5') ? 60 : 2;
}
