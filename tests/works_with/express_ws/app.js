// An Express app with a WebSocket route of express-ws.
import { createServer } from 'node:http';

import express from 'express';
import expressWs from 'express-ws';

import { listen } from '../../express/report.js';
import { echo, report, without } from '../serve.js';

const app = express();
const server = createServer(app);
expressWs(app, server);
if (!without('trust proxy')) app.set('trust proxy', 'loopback');
app.ws('/echo', (socket, { secure, protocol }) => {
  report('seen', { secure, protocol });
  echo(socket);
});
listen(server);
