// Headless Chromium on one page: prints what the page logs, does what it is told on stdin, one JSON a line.
//
//   node visit.js URL --ca FILE
//
// Chromium trusts the one key for which that authority vouches, and nothing else that it would not trust anyway.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { connect } from 'node:tls';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

const { positionals, values } = parseArgs({ allowPositionals: true, options: { ca: { type: 'string' } } });
const { CHROMIUM = '/usr/bin/chromium' } = process.env;

const report = (event) => console.log(JSON.stringify(event));

const key = await keyOf(new URL(positionals[0]), readFileSync(values.ca));
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  chromiumSandbox: false,
  args: [
    `--ignore-certificate-errors-spki-list=${key}`,
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-gpu',
    '--disable-quic',
    '--disable-sync',
    '--no-first-run',
  ],
});
const page = await browser.newPage();
page.on('console', (message) => {
  try {
    report(JSON.parse(message.text()));
  } catch {
    report({ event: 'console', text: message.text() });
  }
});
page.on('pageerror', ({ message }) => report({ event: 'error', message }));

const orders = {
  // Presses a button.
  click: (selector) => page.click(selector),
  // Waits until an element shows that text, and says so.
  await: async ([selector, text]) => {
    await page.locator(selector).filter({ hasText: text }).waitFor();
    report({ event: 'shown', selector, text });
  },
  // Sends a text message over the page's WebSocket.
  send: (text) => page.evaluate((text) => socket.send(text), text),
  // The lines that the page shows a person.
  read: async (selector) => report({ event: 'read', lines: await page.locator(selector).allTextContents() }),
};
const input = createInterface({ input: process.stdin });
input.on('line', async (line) => {
  for (const [order, argument] of Object.entries(JSON.parse(line))) await orders[order](argument);
});
input.on('close', async () => {
  await browser.close();
  process.exit(0);
});

const response = await page.goto(positionals[0]);
report({ event: 'loaded', status: response.status(), title: await page.title() });

// The hash of the server's public key, after a handshake in which `ca` has vouched for it.
async function keyOf({ hostname, port }, ca) {
  const socket = connect({ host: '127.0.0.1', port, servername: hostname, ca });
  await once(socket, 'secureConnect');
  const { publicKey } = socket.getPeerX509Certificate();
  socket.destroy();
  return createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
}
