// A driver of the inspect page: takes orders on stdin, one JSON a line: { id, order, args }, answered by { event:
// "done", id, value } or { event: "failed", id, message }. Errors in the page itself are an "error".
//
//   node drive.js URL
import { createInterface } from 'node:readline';

import { report } from '../browser/chromium.js';
import { launch } from './chromium.js';

const PATIENCE = 20_000;

const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' });
page.setDefaultTimeout(PATIENCE);
page.on('pageerror', ({ message }) => report({ event: 'error', message }));
// A missing file, or a violation of the policy. A connection that breaks is no error of the page.
page.on('console', (message) => {
  if (message.type() === 'error' && !message.text().includes('net::ERR_')) report({ event: 'error', message: message.text() });
});

const orders = {
  click: (selector) => page.click(selector),
  press: (key) => page.keyboard.press(key),
  type: (text) => page.keyboard.type(text),
  // Returns the text of an element.
  text: (selector) => page.locator(selector).first().textContent(),
  // Waits until a visible element contains `text`.
  see: (selector, text) => page.locator(selector).filter({ hasText: text, visible: true }).first().waitFor(),
  // Waits until no element of the kind is visible.
  miss: (selector) => page.locator(selector).filter({ visible: true }).first().waitFor({ state: 'hidden' }),
  // Returns the result of a script in the page.
  ask: (script) => page.evaluate(script),
  // Waits until the result is true.
  until: async (script) => {
    const deadline = Date.now() + PATIENCE;
    for (let last; Date.now() < deadline; await page.waitForTimeout(50)) {
      last = await page.evaluate(script);
      if (last) return last;
    }
    throw new Error(`never true: ${script}`);
  },
  size: (width, height) => page.setViewportSize({ width, height }),
  prefer: (colorScheme) => page.emulateMedia({ colorScheme }),
  reload: () => page.reload().then(() => null),
};

createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const { id, order, args } = JSON.parse(line);
    try {
      report({ event: 'done', id, value: (await orders[order](...args)) ?? null });
    } catch ({ message }) {
      const shown = await page.locator('body').innerText().catch(() => '');
      report({ event: 'failed', id, message: `${message}\nthe page says:\n${shown.slice(0, 2000)}` });
    }
  })
  .on('close', async () => {
    await browser.close();
    process.exit(0);
  });

const response = await page.goto(process.argv[2]);
report({ event: 'loaded', status: response.status(), policy: response.headers()['content-security-policy'] ?? null });
