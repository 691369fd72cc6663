// A page that answers "ping" with "pong", and does nothing about a connection that has ended.
//
//   --beats  it asks "ping" by itself, and expects to be answered
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
