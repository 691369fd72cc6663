// A document of Yjs that y-websocket keeps in step with the server's.
import WebSocket from 'ws';
import { WebsocketProvider } from 'y-websocket';
import { Doc } from 'yjs';

import { report, takeOrders, url } from '../../libraries/page.js';

const doc = new Doc();
const down = doc.getMap('down');
down.observe(() => report('message', { data: down.get('text') }));
const provider = new WebsocketProvider(url, 'room', doc, { WebSocketPolyfill: WebSocket, disableBc: true });
provider.awareness.setLocalStateField('user', { name: 'page' });
provider.on('sync', (synced) => synced && report('open', {}));
provider.on('connection-close', (close) => report('close', { code: close?.code, reason: close?.reason }));

takeOrders({ send: (text) => doc.getMap('up').set('text', text) });
