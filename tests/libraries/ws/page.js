// A page that answers "ping" with "pong", and does nothing about a connection that has ended.
import { report, takeOrders, url } from '../page.js';
import { WebSocket } from '../websocket.js';

const socket = new WebSocket(url);
socket.onopen = () => report('open', {});
socket.onmessage = ({ data }) => {
  if (data === 'ping') return socket.send('pong');
  report('message', { data });
};
socket.onerror = ({ message }) => report('error', { message });
socket.onclose = ({ code, reason }) => report('close', { code, reason });

takeOrders({ send: (text) => socket.send(text) });
