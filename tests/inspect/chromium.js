// Headless Chromium on the inspect page.
import { executable } from '../browser/chromium.js';
import { chromium } from '../browser/node_modules/playwright-core/index.mjs';

export async function launch() {
  const args = ['--disable-background-networking', '--disable-component-update', '--disable-gpu', '--disable-sync', '--no-first-run'];
  return chromium.launch({ executablePath: executable, chromiumSandbox: false, args });
}
