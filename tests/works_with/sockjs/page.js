// A client of SockJS.
//
//   node sockjs/page.js URL TRANSPORT
import SockJS from 'sockjs-client';

import { flags, report, takeOrders, url } from '../../libraries/page.js';

const socket = new SockJS(url.replace(/^ws/, 'http'), null, { transports: flags });
socket.onopen = () => report('open', { transport: socket.transport });
socket.onmessage = ({ data }) => report('message', { data });
socket.onheartbeat = () => report('beat', {});
socket.onclose = ({ code, reason }) => report('close', { code, reason });

takeOrders({ send: (text) => socket.send(text) });
