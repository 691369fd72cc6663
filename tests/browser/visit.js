// Headless Chromium on one page: prints what the page logs, does what it is told on stdin, one JSON a line.
//
//   node visit.js URL --ca FILE [--http1] [--host NAME]
//
// With --host the page is opened under that name, which leads to 127.0.0.1 then.
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { executable, flags, relay, report } from './chromium.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { ca: { type: 'string' }, http1: { type: 'boolean' }, host: { type: 'string' } },
});
const url = new URL(positionals[0]);
const trusted = await flags(url, values.ca);
if (values.host) url.hostname = values.host;

const browser = await chromium.launch({
  executablePath: executable,
  chromiumSandbox: false,
  args: [
    ...trusted,
    ...(values.http1 ? ['--disable-http2'] : []),
    ...(values.host ? [`--host-resolver-rules=MAP ${values.host} 127.0.0.1`] : []),
  ],
});
const page = await browser.newPage();
page.on('console', (message) => relay(message.text()));
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
  // Blocks the page's only thread for so long, as a script that computes does; says so when it begins and ends.
  block: async (milliseconds) => {
    const lasted = await page.evaluate((milliseconds) => {
      const began = performance.now();
      console.log(JSON.stringify({ event: 'blocked' }));
      while (performance.now() < began + milliseconds);
      return performance.now() - began;
    }, milliseconds);
    report({ event: 'unblocked', lasted });
  },
};
const input = createInterface({ input: process.stdin });
input.on('line', async (line) => {
  for (const [order, argument] of Object.entries(JSON.parse(line))) await orders[order](argument);
});
input.on('close', async () => {
  await browser.close();
  process.exit(0);
});

const response = await page.goto(url.href);
report({ event: 'loaded', status: response.status(), title: await page.title() });
