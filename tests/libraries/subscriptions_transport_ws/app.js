// A GraphQL server with subscriptions-transport-ws, which sends a keep-alive message that gets no answer.
import { createServer } from 'node:http';

import { execute, subscribe } from 'graphql';
import { SubscriptionServer } from 'subscriptions-transport-ws';

import { listen, report } from '../../express/report.js';
import { rootValue, schema } from '../graphql_ws/schema.js';

const server = createServer();
SubscriptionServer.create(
  {
    schema,
    rootValue,
    execute,
    subscribe,
    keepAlive: 400,
    onConnect: () => report('open', {}),
    // The library passes the socket and does not report its end.
    onDisconnect: ({ _closeCode: code, _closeMessage: reason }) => report('close', { code, reason: String(reason) }),
  },
  { server },
);
listen(server);
