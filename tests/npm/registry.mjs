// A registry of npm packages on loopback: the tarballs that its arguments name. It prints its address, and then each request
// as a line of JSON.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const packages = new Map();
const tarballs = new Map();

const server = createServer((request, response) => {
  const path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
  const found = packages.get(path.slice(1));
  const tarball = tarballs.get(path);
  const status = found || tarball ? 200 : 404;
  console.log(JSON.stringify({ event: 'request', method: request.method, path, status }));
  response.writeHead(status, { 'content-type': tarball ? 'application/octet-stream' : 'application/json' });
  response.end(tarball ?? JSON.stringify(found ?? { error: 'Not found' }));
});

server.listen(0, '127.0.0.1', () => {
  const base = `http://127.0.0.1:${server.address().port}`;
  process.argv.slice(2).forEach((file) => add(base, file));
  console.log(JSON.stringify({ event: 'listening', url: base }));
});

function add(base, file) {
  const options = { maxBuffer: 1 << 20, stdio: ['ignore', 'pipe', 'inherit'] };
  const manifest = JSON.parse(execFileSync('tar', ['-xzOf', file, 'package/package.json'], options));
  const { name, version } = manifest;
  const bytes = readFileSync(file);
  const path = `/${name}/-/${name.split('/').pop()}-${version}.tgz`;
  const digest = (algorithm, encoding) => createHash(algorithm).update(bytes).digest(encoding);
  const dist = { tarball: base + path, integrity: `sha512-${digest('sha512', 'base64')}`, shasum: digest('sha1', 'hex') };
  // Old enough for package managers that wait some days before they install a new version.
  const time = '2020-01-01T00:00:00.000Z';
  packages.set(name, {
    name,
    'dist-tags': { latest: version },
    time: { created: time, modified: time, [version]: time },
    versions: { [version]: { ...manifest, _id: `${name}@${version}`, dist } },
  });
  tarballs.set(path, bytes);
}
