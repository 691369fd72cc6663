// A TypeScript app, for tsx.
import { createServer, type Server } from 'node:http';

const server: Server = createServer((_request, response) => response.end('typescript\n'));
server.listen(Number(process.env.PORT), process.env.HOST, () => console.log('typescript listens'));
