// A page with Socket.IO's bundle for browsers.
//
//   --websocket  WebSocket from the beginning; without it, polling that is upgraded
import { createRequire } from 'node:module';

import { flags, report, takeOrders, url } from '../page.js';
import '../browser.js';

const require = createRequire(import.meta.url);
({ XMLHttpRequest: globalThis.XMLHttpRequest } = require('xmlhttprequest-ssl'));
const { io } = require('socket.io-client/dist/socket.io.js');

const socket = io(url, flags.includes('--websocket') ? { transports: ['websocket'] } : {});
socket.on('connect', () => {
  const { engine } = socket.io;
  const opened = (from) => report('open', { transport: engine.transport.name, from });
  if (engine.transport.name === 'polling') engine.once('upgrade', () => opened('polling'));
  else opened('websocket');
});
socket.on('connect_error', ({ message }) => report('error', { message }));
socket.on('disconnect', (reason, details) => report('close', { reason, code: details?.context?.code, details: details?.description }));
socket.on('echo', (data) => report('message', { data }));
socket.io.on('ping', () => report('beat', {}));

takeOrders({ send: (text) => socket.emit('echo', text) });
