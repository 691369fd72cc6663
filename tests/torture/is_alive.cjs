// A WebSocket server with the isAlive timer of the documentation of ws: each period it terminates every client that has
// not answered the last Ping. Arguments: the port, and the period in milliseconds (half the bound).
const { WebSocketServer } = require('ws');

const [port, period] = process.argv.slice(2).map(Number);
const server = new WebSocketServer({ host: '127.0.0.1', port });

server.on('connection', (socket) => {
  socket.isAlive = true;
  socket.on('pong', () => { socket.isAlive = true; });
  socket.on('error', () => {});
});

setInterval(() => {
  for (const socket of server.clients) {
    if (!socket.isAlive) {
      socket.terminate();
      continue;
    }
    socket.isAlive = false;
    socket.ping();
  }
}, period);
