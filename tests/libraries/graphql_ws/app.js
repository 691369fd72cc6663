// A GraphQL server with graphql-ws, and its own heartbeat: WebSocket pings.
import { createServer } from 'node:http';

import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';

import { listen, report } from '../../express/report.js';
import { rootValue, schema } from './schema.js';

const KEEP_ALIVE_MS = 2_000;

const server = createServer();
useServer(
  {
    schema,
    roots: { query: rootValue },
    onConnect: () => report('open', {}),
    // The app sends no Ping message of the protocol, so that a Pong arrives only if the proxy lets an answer to its own
    // Ping through.
    onPong: () => report('message', { data: 'pong' }),
    onPing: () => report('beat', {}),
    onClose: (_context, code, reason) => report('close', { code, reason }),
  },
  new WebSocketServer({ server }),
  KEEP_ALIVE_MS,
);
listen(server);
