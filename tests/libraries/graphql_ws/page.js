// A page with graphql-ws that keeps its connection open at all times and sends pings of its own.
import { createClient } from 'graphql-ws';

import { report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';
import { query } from './schema.js';

const client = createClient({
  url,
  webSocketImpl: WebSocket,
  lazy: false,
  keepAlive: 500,
  on: {
    connected: () => report('open', {}),
    closed: ({ code, reason }) => report('close', { code, reason }),
    error: ({ message }) => report('error', { message }),
    pong: (received) => received && report('beat', {}),
  },
});

takeOrders({
  send: (text) =>
    client.subscribe(
      { query, variables: { text } },
      {
        next: ({ data }) => report('message', { data: data.echo }),
        error: (error) => report('error', { message: String(error) }),
        complete: () => {},
      },
    ),
});
