// What every visit to a page needs: where Chromium is, how it is started, and whom it trusts.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:tls';

export const { CHROMIUM: executable = '/usr/bin/chromium' } = process.env;

export const report = (event) => console.log(JSON.stringify(event));

// What a page wrote to its console: events of its own as they are, anything else as text.
export function relay(text) {
  try {
    report(JSON.parse(text));
  } catch {
    report({ event: 'console', text });
  }
}

// The arguments for a Chromium that speaks to nobody but the server at `url`, and trusts the one key for which the
// authority in the file `ca` vouches, beside what it would trust anyway.
export async function flags(url, ca) {
  return [
    `--ignore-certificate-errors-spki-list=${await keyOf(new URL(url), readFileSync(ca))}`,
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-gpu',
    '--disable-quic',
    '--disable-sync',
    '--no-first-run',
  ];
}

// The hash of the server's public key, after a handshake in which `ca` has vouched for it.
async function keyOf({ hostname, port }, ca) {
  const socket = connect({ host: '127.0.0.1', port, servername: hostname, ca });
  await once(socket, 'secureConnect');
  const { publicKey } = socket.getPeerX509Certificate();
  socket.destroy();
  return createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
}
