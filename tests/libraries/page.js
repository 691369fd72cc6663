// Common code of the pages of all libraries. A page is a process of its own:
//
//   node LIBRARY/page.js URL [FLAG]...
//
// It reports events as JSON lines: `open` for each connection that the library reports, `close` with the library's
// details of the end, `message` for an echo of the app, `beat` for a heartbeat of the library that is visible to its
// user. It reads orders on stdin, one JSON object per line: {"send": TEXT} sends a text for the app to echo; {"hang":
// true} blocks the event loop until the next line. It ends with its stdin.
import { readSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { report } from '../express/report.js';

export { report };

export const [url, ...flags] = process.argv.slice(2);

export function takeOrders(orders) {
  const known = { hang, ...orders };
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      for (const [order, argument] of Object.entries(JSON.parse(line))) known[order](argument);
    })
    .on('close', () => process.exit(0));
}

// A hung page: nothing runs on this thread until stdin has another line. Threads of the libraries, and the kernel,
// continue.
function hang() {
  report('hung', {});
  const byte = Buffer.alloc(1);
  while (!readByte(byte) || byte[0] !== 0x0a);
  report('awake', {});
}

function readByte(byte) {
  try {
    if (readSync(0, byte) === 1) return true;
    process.exit(0);
  } catch (error) {
    if (error.code !== 'EAGAIN') throw error;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    return false;
  }
}
