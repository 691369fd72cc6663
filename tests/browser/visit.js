// Headless Chromium on one page: prints what the page logs, does what it is told on stdin, one JSON a line.
//
//   node visit.js URL --certificate FILE
//
// Chromium trusts the key of that certificate and nothing else that it would not trust anyway.
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

const { positionals, values } = parseArgs({ allowPositionals: true, options: { certificate: { type: 'string' } } });
const { CHROMIUM = '/usr/bin/chromium' } = process.env;

const report = (event) => console.log(JSON.stringify(event));

const key = new X509Certificate(readFileSync(values.certificate)).publicKey.export({ type: 'spki', format: 'der' });
const browser = await chromium.launch({
  executablePath: CHROMIUM,
  chromiumSandbox: false,
  args: [
    `--ignore-certificate-errors-spki-list=${createHash('sha256').update(key).digest('base64')}`,
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
