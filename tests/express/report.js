// What the tests read: one JSON line for each event, and one line that says where the app listens.

export function report(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

// Listens on LISTEN (a port, or the path of a unix socket), or on a port of the system's choice.
export function listen(server) {
  const { LISTEN = '0' } = process.env;
  const where = /^\d+$/.test(LISTEN) ? { port: Number(LISTEN), host: '127.0.0.1' } : { path: LISTEN };
  server.listen({ ...where, backlog: 4096 }, () => {
    const address = server.address();
    console.log(`listening ${address.port ?? address}`);
  });
}
