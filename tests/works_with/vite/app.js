// Vite's development server, with a page that takes updates of one module.
import { createServer } from 'vite';

import { report, reportClose, without } from '../serve.js';
import { sources } from '../sources.js';

const HTML = '<!doctype html><html lang="en"><title>Vite</title><script type="module" src="/main.js"></script></html>\n';
const MAIN = `
import { text } from './text.js';
const log = (event, fields) => console.log(JSON.stringify({ event, ...fields }));
import.meta.hot.accept('./text.js', (module) => log('message', { data: module.text }));
import.meta.hot.on('vite:ws:disconnect', () => log('close', {}));
log('open', { text });
`;

const server = await createServer({
  root: sources({ 'index.html': HTML, 'main.js': MAIN }),
  configFile: false,
  logLevel: 'error',
  server: {
    host: '127.0.0.1',
    port: 0,
    ...(without('server.allowedHosts') ? {} : { allowedHosts: ['app.test'] }),
  },
});
server.ws.on('connection', (socket) => {
  report('open', {});
  reportClose(socket);
});
await server.listen();
console.log(`listening ${server.httpServer.address().port}`);
