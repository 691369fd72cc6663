// Renders deploy/inspect.png, the picture of the inspect page in deploy/OPERATIONS.md.
//
//   node tests/inspect/picture.js
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { launch } from './chromium.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
// Long enough to fill the plots.
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
// Of the sessions that have missed a heartbeat, the one with the fullest plot.
const ids = await page.evaluate(async () => {
  const { connections } = await (await fetch('/v1/connections?state=open&limit=5000')).json();
  return connections.filter(({ heartbeat }) => heartbeat.missed > 0 && heartbeat.misses === 0).map(({ id }) => id);
});
const richness = new Map();
for (const id of ids.slice(0, 40)) {
  await page.fill('#search', id);
  await page.locator(`.body .row[data-id="${id}"]`).click({ timeout: 2000 }).catch(() => {});
  await page.waitForTimeout(200);
  const [answers, misses] = await Promise.all(['.dot', 'circle.miss'].map((mark) => page.locator(`#details ${mark}`).count()));
  richness.set(id, misses ? answers : 0);
}
// Some of them may have closed meanwhile.
for (const [id] of [...richness].sort(([, a], [, b]) => b - a)) {
  await page.fill('#search', id);
  const row = page.locator(`.body .row[data-id="${id}"][data-health="alive"]`);
  if (await row.click({ timeout: 2000 }).then(() => true, () => false)) break;
}
await page.fill('#search', '');
await page.click('[data-column="rtt"] button');
await page.click('[data-column="rtt"] button');
await page.mouse.move(5, 5);
await page.waitForTimeout(2000);
await page.screenshot({ path: here('../../deploy/inspect.png') });
await browser.close();
crowd.kill();
