// webpack's development server, with a page that takes updates of one module.
import webpack from 'webpack';
import WebpackDevServer from 'webpack-dev-server';
import WebsocketServer from 'webpack-dev-server/lib/servers/WebsocketServer.js';

import { report, reportClose, without } from '../serve.js';
import { sources } from '../sources.js';

const HTML = '<!doctype html><html lang="en"><title>webpack</title><script src="/main.js" defer></script></html>\n';
const MAIN = `
import { text } from './text.js';
const log = (event, fields) => console.log(JSON.stringify({ event, ...fields }));
import.meta.webpackHot.accept('./text.js', () => log('message', { data: text }));
log('open', { text });
`;

// The server's own heartbeat ends each client that misses one second, which is quicker than the proxy's in the tests,
// and too short for a busy machine. This is the interval of other servers.
WebsocketServer.heartbeatInterval = 30_000;

const folder = sources({ 'index.html': HTML, 'main.js': MAIN });
const compiler = webpack({
  mode: 'development',
  devtool: false,
  context: folder,
  entry: './main.js',
  output: { path: `${folder}/dist`, filename: 'main.js' },
  infrastructureLogging: { level: 'error' },
  stats: 'errors-only',
});
const options = {
  host: '127.0.0.1',
  port: 0,
  static: { directory: folder, watch: false },
  ...(without('allowedHosts') ? {} : { allowedHosts: ['app.test'] }),
  ...(without('client.webSocketURL') ? {} : { client: { webSocketURL: 'auto://0.0.0.0:0/ws' } }),
};
const server = new WebpackDevServer(options, compiler);
await server.start();
server.webSocketServer.implementation.on('connection', (socket) => {
  report('open', {});
  reportClose(socket);
});
console.log(`listening ${server.server.address().port}`);
