// Parts that several apps share. An app reports `open` and `close` of its own handlers, `message` for each text that it
// receives, and `seen` for what its framework says about the request.
import { report } from '../express/report.js';

export { report };

// Whether this run leaves out one setting, to show what happens without it.
export const without = (setting) => process.env.WITHOUT === setting;

// The echo behind one socket of `ws`.
export function echo(socket) {
  report('open', {});
  socket.on('message', (data) => {
    report('message', { data: String(data) });
    socket.send(String(data));
  });
  reportClose(socket);
}

export function reportClose(socket) {
  socket.on('close', (code, reason) => report('close', { code, reason: String(reason) }));
}
