// A Jupyter server with the subset that an echo needs: one kernel that prints its input, and one terminal. It pings its
// clients, as Tornado does. Plain requests query the kernel's state.
import { deserialize, serialize } from '@jupyterlab/services/lib/kernel/serialize.js';

import { report, serve } from '../serve.js';

const INTERVAL_MS = 500;
const KERNEL = { id: '1', name: 'echo', execution_state: 'idle', last_activity: '2026-01-01T00:00:00Z', connections: 1 };

serve(session, (_, response) => {
  response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(KERNEL));
});

function session(socket, request) {
  const timer = setInterval(() => socket.ping(), INTERVAL_MS);
  socket.on('pong', () => report('beat', {}));
  socket.on('close', () => clearInterval(timer));
  report('open', {});
  if (request.url.startsWith('/terminals/')) serveTerminal(socket);
  else serveKernel(socket);
}

function serveTerminal(socket) {
  const send = (...message) => socket.send(JSON.stringify(message));
  socket.on('message', (message) => {
    const [type, data] = JSON.parse(message);
    if (type !== 'stdin') return;
    report('message', { data });
    send('stdout', data);
  });
  send('setup', {});
}

function serveKernel(socket) {
  let sent = 0;

  const send = (request, channel, type, content) => {
    const header = { ...request.header, msg_id: `reply-${++sent}`, msg_type: type };
    socket.send(serialize({ channel, header, parent_header: request.header, metadata: {}, content }, socket.protocol));
  };
  const requests = {
    kernel_info_request: (request) => {
      const language = { name: 'echo', version: '1', mimetype: 'text/plain', file_extension: '.txt' };
      send(request, 'shell', 'kernel_info_reply', { status: 'ok', protocol_version: '5.3', language_info: language });
    },
    execute_request: (request) => {
      const { code } = request.content;
      report('message', { data: code });
      send(request, 'iopub', 'stream', { name: 'stdout', text: code });
      send(request, 'shell', 'execute_reply', { status: 'ok', execution_count: 1 });
    },
  };

  socket.on('message', (data) => {
    const request = deserialize(Uint8Array.from(data).buffer, socket.protocol);
    send(request, 'iopub', 'status', { execution_state: 'busy' });
    requests[request.header.msg_type](request);
    send(request, 'iopub', 'status', { execution_state: 'idle' });
  });
}
