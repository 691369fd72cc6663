// Parts that several apps share. An app reports `open` and `close` of its own handlers, `message` for each text that it
// receives, and `seen` for its framework's view of the request.
import { report } from '../express/report.js';

export { report };

// Returns whether this run leaves out one setting, to show the effect.
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
