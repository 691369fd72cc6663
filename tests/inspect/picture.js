// Makes deploy/inspect.png anew, the picture of the inspect page in README.
//
//   node tests/inspect/picture.js
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { launch } from './chromium.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
// Long enough for the plot to have something to show.
const WATCHED = 75_000;

const crowd = spawn('node', [here('crowd.js'), '--sessions', '4987', '--churn', '6'], { stdio: ['ignore', 'pipe', 'inherit'] });
const [url] = await new Promise((resolve) => {
  createInterface({ input: crowd.stdout }).once('line', (line) => resolve(line.match(/http\S+/)));
});
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 760 }, colorScheme: 'light' });
await page.goto(url);
await page.locator('.body .row').first().waitFor();
await page.click('#tab-closed');
await page.fill('#search', 'stopped');
await page.locator('.body .row').nth(2).click();
await page.click('#tab-open');
await page.fill('#search', '');
await page.click('[data-column="rtt"] button');
await page.click('[data-column="rtt"] button');
await page.locator('.body .row[data-health="alive"]').nth(3).click();
await page.mouse.move(5, 5);
await page.waitForTimeout(WATCHED);
await page.screenshot({ path: here('../../deploy/inspect.png') });
await browser.close();
crowd.kill();
