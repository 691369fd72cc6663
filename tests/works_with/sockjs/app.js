// A SockJS server, with a heartbeat quick enough for a test.
import { createServer } from 'node:http';

import sockjs from 'sockjs';

import { listen } from '../../express/report.js';
import { report } from '../serve.js';

const service = sockjs.createServer({ prefix: '/echo', heartbeat_delay: 1_000, log: () => {} });
service.on('connection', (connection) => {
  report('seen', { transport: connection.protocol });
  report('open', {});
  connection.on('data', (data) => {
    report('message', { data });
    connection.write(data);
  });
  connection.on('close', () => report('close', {}));
});
const server = createServer();
service.installHandlers(server);
listen(server);
