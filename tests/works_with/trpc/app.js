// A tRPC server over WebSockets: a mutation, and a subscription that yields what was sent to it.
import { EventEmitter, on, once } from 'node:events';
import { createServer } from 'node:http';

import { initTRPC } from '@trpc/server';
import { applyWSSHandler } from '@trpc/server/adapters/ws';
import { WebSocketServer } from 'ws';

import { listen } from '../../express/report.js';
import { report } from '../serve.js';

const t = initTRPC.context().create();
const texts = new EventEmitter();
const router = t.router({
  send: t.procedure.input(String).mutation(({ input: data }) => {
    report('message', { data });
    texts.emit('text', data);
  }),
  texts: t.procedure.subscription(async function* ({ ctx: { closed }, signal }) {
    report('open', {});
    try {
      for await (const [text] of on(texts, 'text', { signal })) yield text;
    } finally {
      const [code, reason] = await closed;
      report('close', { code, reason: String(reason) });
    }
  }),
});

const server = createServer();
// `res` is the connection's WebSocket.
const createContext = ({ res }) => ({ closed: once(res, 'close') });
applyWSSHandler({ wss: new WebSocketServer({ server }), router, createContext });
listen(server);
