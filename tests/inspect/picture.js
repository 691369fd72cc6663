// Makes deploy/inspect.png anew, the picture of the inspect page in README.
//
//   node tests/inspect/picture.js
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { launch } from './chromium.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
// Long enough for the plots to have something to show.
const WATCHED = 150_000;

const crowd = spawn('node', [here('crowd.js'), '--sessions', '4987', '--churn', '6'], { stdio: ['ignore', 'pipe', 'inherit'] });
const [url] = await new Promise((resolve) => {
  createInterface({ input: crowd.stdout }).once('line', (line) => resolve(line.match(/http\S+/)));
});
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 760 }, colorScheme: 'light' });
await page.goto(url);
await page.locator('.body .row').first().waitFor();
await page.waitForTimeout(WATCHED);
// Of those that have missed a beat, the first whose plot shows it among some answers.
await page.click('[data-column="missed"] button');
await page.click('[data-column="missed"] button');
for (let row = 0; row < 12; row += 1) {
  await page.locator('.body .row[data-health="alive"]:visible').nth(row).click();
  await page.waitForTimeout(300);
  const [answers, misses] = await Promise.all(['.dot', 'circle.miss'].map((mark) => page.locator(`#details ${mark}`).count()));
  if (answers > 4 && misses > 0) break;
}
await page.click('[data-column="rtt"] button');
await page.click('[data-column="rtt"] button');
await page.mouse.move(5, 5);
await page.waitForTimeout(2000);
await page.screenshot({ path: here('../../deploy/inspect.png') });
await browser.close();
crowd.kill();
