// The connections of a JupyterLab page: to a kernel or, with the flag --terminal, to a terminal.
import { createRequire } from 'node:module';

import { flags, report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';

const require = createRequire(import.meta.url);
const { KernelConnection, ServerConnection } = require('@jupyterlab/services');
const { TerminalConnection } = require('@jupyterlab/services/lib/terminal/default.js');

// Log output of the library is not an event.
for (const level of ['debug', 'log', 'warn']) console[level] = () => {};
console.error = () => {};

// The library does not report how a connection ended.
class Watched extends WebSocket {
  constructor(...how) {
    super(...how);
    this.addEventListener('close', ({ code, reason }) => report('close', { code, reason }));
  }
}

const serverSettings = ServerConnection.makeSettings({
  baseUrl: url.replace(/^ws/, 'http'),
  wsUrl: url,
  WebSocket: Watched,
});
const { connection, send } = flags.includes('--terminal') ? terminal() : kernel();
connection.connectionStatusChanged.connect((_, status) => status === 'connected' && report('open', {}));

takeOrders({ send });

function terminal() {
  const connection = new TerminalConnection({ model: { name: '1' }, serverSettings });
  connection.messageReceived.connect((_, { content }) => report('message', { data: content[0] }));
  return { connection, send: (text) => connection.send({ type: 'stdin', content: [text] }) };
}

function kernel() {
  const connection = new KernelConnection({ model: { id: '1', name: 'echo' }, serverSettings });
  const send = (code) => {
    connection.requestExecute({ code }).onIOPub = ({ content: { text } }) => text && report('message', { data: text });
  };
  return { connection, send };
}
