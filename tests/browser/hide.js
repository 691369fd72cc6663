// Headless Chromium with a page in a tab that gets hidden behind another one: prints what the page logs.
//
//   node hide.js URL --ca FILE --profile FOLDER
//
// Playwright keeps every page awake and in sight on purpose, so this speaks to Chromium itself, over the pipe of its
// own protocol. The page is loaded in sight; with the first line on stdin another tab comes to the front. One second
// later, and not after the usual minutes, Chromium throttles the hidden page's timers to one wake-up a minute.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { executable, flags, relay, report } from './chromium.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { ca: { type: 'string' }, profile: { type: 'string' } },
});
const [url] = positionals;

const chromium = spawn(
  executable,
  [
    ...(await flags(url, values.ca)),
    '--headless',
    '--no-sandbox',
    '--remote-debugging-pipe',
    `--user-data-dir=${values.profile}`,
    '--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1',
  ],
  // The two ends of the pipe are Chromium's descriptors 3 and 4.
  { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
);
chromium.on('exit', (code) => process.exit(code ?? 1));

const [, , , orders, answers] = chromium.stdio;
const waiting = new Map();
let last = 0;
let rest = '';
answers.setEncoding('utf8').on('data', (chunk) => {
  const messages = (rest + chunk).split('\0');
  rest = messages.pop();
  for (const message of messages) take(JSON.parse(message));
});

const { targetId } = await order('Target.createTarget', { url: 'about:blank' });
const { sessionId } = await order('Target.attachToTarget', { targetId, flatten: true });
await order('Runtime.enable', {}, sessionId);
await order('Page.navigate', { url }, sessionId);

createInterface({ input: process.stdin })
  .once('line', () => order('Target.createTarget', { url: 'about:blank' }))
  .on('close', () => order('Browser.close'));

// Gives one order of the DevTools protocol, to a page or to the whole browser, and waits for what comes of it.
function order(method, params = {}, sessionId = undefined) {
  orders.write(`${JSON.stringify({ id: ++last, method, params, sessionId })}\0`);
  return new Promise((resolve, reject) => waiting.set(last, { resolve, reject }));
}

function take({ id, result, error, method, params }) {
  if (waiting.has(id)) {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new Error(error.message));
    else resolve(result);
  } else if (method === 'Runtime.consoleAPICalled') {
    relay(params.args.map(({ value }) => value).join(' '));
  } else if (method === 'Runtime.exceptionThrown') {
    report({ event: 'error', message: params.exceptionDetails.text });
  }
}
