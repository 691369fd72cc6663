// A page that subscribes to a topic and publishes on it. With the flag --node it is a server's client: the library's
// stream for Node, which sends each field of a packet as a message, and has no thread beside it.
import '../browser.js';
import { flags, report, takeOrders, url } from '../page.js';

import mqtt from 'mqtt';

const client = mqtt.connect(url, { forceNativeWebSocket: !flags.includes('--node'), keepalive: 2 });
client.subscribe('echo');
client.on('connect', () => report('open', {}));
client.on('packetreceive', ({ cmd }) => cmd === 'pingresp' && report('beat', {}));
client.on('message', (_topic, payload) => report('message', { data: String(payload) }));
client.on('error', ({ message }) => report('error', { message }));
client.on('close', () => report('close', {}));

takeOrders({ send: (text) => client.publish('echo', text) });
