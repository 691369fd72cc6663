// A client of tRPC with one subscription.
import { createTRPCClient, createWSClient, wsLink } from '@trpc/client';
import WebSocket from 'ws';

import { report, takeOrders, url } from '../../libraries/page.js';

const client = createWSClient({
  url,
  WebSocket,
  retryDelayMs: () => 500,
  onClose: (cause) => report('close', { code: cause?.code }),
});
const trpc = createTRPCClient({ links: [wsLink({ client })] });
trpc.texts.subscribe(undefined, {
  onStarted: () => report('open', {}),
  onData: (data) => report('message', { data }),
  onError: ({ message }) => report('error', { message }),
});

takeOrders({ send: (text) => trpc.send.mutate(text) });
