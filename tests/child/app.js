// An app that pulsegate starts. Its first argument is the way in which it behaves, others belong to that way.
import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { connect } from 'node:net';

import { WebSocketServer } from 'ws';

const { HOST, PORT } = process.env;
const [way = 'good', ...rest] = process.argv.slice(2);

const report = (event, fields) => process.stdout.write(`${JSON.stringify({ event, at: Date.now(), pid: process.pid, ...fields })}\n`);

const server = createServer((request, response) => {
  if (request.url === '/exit') process.exit(Number(rest[0] ?? 0));
  response.end(`app ${process.pid}\n`);
});
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket) => {
  report('open');
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('error', () => {});
  socket.on('close', (code) => report('close', { code }));
});

const listen = (...where) => server.listen(...where, () => report('listening', { address: server.address() }));

// The end that a well-behaved app has: it reports how many sessions it still has, and exits with the code 7.
const endOnSigterm = () =>
  process.on('SIGTERM', () => {
    report('sigterm', { sessions: sockets.clients.size });
    process.exit(7);
  });

const ways = {
  good() {
    endOnSigterm();
    listen(PORT, HOST);
  },
  // Node's default: SIGTERM kills it.
  plain: () => listen(PORT, HOST),
  stubborn() {
    process.on('SIGTERM', () => report('sigterm', {}));
    listen(PORT, HOST);
  },
  slow() {
    endOnSigterm();
    setTimeout(() => listen(PORT, HOST), 2600);
  },
  // Listens once it gets SIGUSR2.
  'when-told'() {
    endOnSigterm();
    process.on('SIGUSR2', () => listen(PORT, HOST));
    setInterval(() => {}, 1000);
  },
  everywhere() {
    endOnSigterm();
    listen(PORT);
  },
  'ignores-port'() {
    endOnSigterm();
    listen(0, '127.0.0.1');
  },
  ipv6() {
    endOnSigterm();
    listen(PORT, '::1');
  },
  unix() {
    endOnSigterm();
    listen(rest[0]);
  },
  crash() {
    throw new Error('crashed at once');
  },
  nowhere() {
    endOnSigterm();
    setInterval(() => {}, 1000);
  },
  loop() {
    endOnSigterm();
    const again = () => spawn(process.execPath, ['-e', 'process.exit(1)']).on('exit', () => setTimeout(again, 100));
    again();
  },
  // Leaves a process whose parent is gone, in a session of its own, so that it becomes an orphan of the first process.
  orphans() {
    endOnSigterm();
    const leaf = `setTimeout(() => {}, ${rest[0] ?? 300})`;
    const middle = `require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(leaf)}], { detached: true, stdio: 'ignore' }).unref()`;
    spawn(process.execPath, ['-e', middle], { stdio: 'ignore' }).on('exit', () => report('orphaned', {}));
    listen(PORT, HOST);
  },
  // Has a worker in a session of its own, which takes its time to end, or with an argument takes no SIGTERM at all.
  detached() {
    endOnSigterm();
    const end = rest[0] ? '' : "setTimeout(() => { say('worker ended'); process.exit(0); }, 300)";
    const worker = `const say = (event) => console.log(JSON.stringify({ event, pid: process.pid }));
      process.on('SIGTERM', () => { say('worker sigterm'); ${end} });
      setInterval(() => {}, 1000); say('worker');`;
    spawn(process.execPath, ['-e', worker], { detached: true, stdio: 'inherit' });
    listen(PORT, HOST);
  },
  // Goes into the background: its first process ends once the other one, in a session of its own, listens.
  daemon() {
    spawn(process.execPath, [process.argv[1], 'good'], { detached: true, stdio: 'inherit' });
    const look = () => connect(PORT, HOST, () => process.exit(0)).on('error', () => setTimeout(look, 50));
    look();
  },
  stops() {
    endOnSigterm();
    setInterval(() => {}, 1000);
    setImmediate(() => process.kill(process.pid, 'SIGSTOP'));
  },
  keys() {
    endOnSigterm();
    process.stdin.setRawMode(true);
    process.stdin.on('data', (key) => report('key', { text: String(key) }));
    listen(PORT, HOST);
  },
  // Changes the size of the first terminal at the first line of input, and reports that of its own at SIGWINCH.
  resizes() {
    endOnSigterm();
    const size = () => String(execFileSync('stty', ['size'], { stdio: ['inherit', 'pipe', 'inherit'] })).trim();
    process.on('SIGWINCH', () => report('resized', { size: size() }));
    process.stdin.once('data', () => execFileSync('sh', ['-c', 'stty cols 90 rows 33 < /dev/tty']));
    listen(PORT, HOST);
  },
  // Ends, while a process of its group goes on.
  leaves() {
    spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' }).on('spawn', function () {
      report('left', { child: this.pid });
    });
    listen(PORT, HOST);
  },
  reads() {
    endOnSigterm();
    process.stdin.setEncoding('utf8');
    process.stdin.on('data', (text) => report('read', { text }));
    process.stdin.on('end', () => report('input ended', {}));
    listen(PORT, HOST);
  },
};

ways[way]();
// Its handlers are set: a signal after this line finds them.
report('started', { way, host: HOST, port: PORT, tty: process.stdin.isTTY === true });
