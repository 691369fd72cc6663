// Headless Chromium without any exception for certificates: reports how a visit to each URL ended.
//
//   HOME=… node visit.js URL…
import { executable, report } from '../browser/chromium.js';
import { chromium } from '../browser/node_modules/playwright-core/index.mjs';

const args = ['--disable-background-networking', '--disable-component-update', '--disable-gpu', '--disable-quic', '--disable-sync', '--no-first-run'];
const browser = await chromium.launch({ executablePath: executable, chromiumSandbox: false, args });
const page = await browser.newPage();
for (const url of process.argv.slice(2)) {
  try {
    const response = await page.goto(url);
    report({ event: 'visited', url, status: response.status() });
  } catch ({ message }) {
    report({ event: 'refused', url, reason: /ERR_\w+/.exec(message)?.[0] ?? message });
  }
}
await browser.close();
