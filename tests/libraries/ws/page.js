// A page that answers "ping" with "pong", and does not reconnect.
//
//   --beats  it sends "ping" by itself, and expects an answer
import { flags, report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';

const INTERVAL_MS = 500;

const socket = new WebSocket(url);
socket.onopen = () => {
  report('open', {});
  if (flags.includes('--beats')) setInterval(() => socket.readyState === WebSocket.OPEN && socket.send('ping'), INTERVAL_MS);
};
socket.onmessage = ({ data }) => {
  if (data === 'ping') return socket.send('pong');
  if (data === 'pong') return report('beat', {});
  report('message', { data });
};
socket.onerror = ({ message }) => report('error', { message });
socket.onclose = ({ code, reason }) => report('close', { code, reason });

takeOrders({ send: (text) => socket.send(text) });
