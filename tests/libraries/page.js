// What the pages of all libraries have in common. A page is a process of its own:
//
//   node LIBRARY/page.js URL [FLAG]...
//
// It reports what happens as JSON lines: `open` whenever the library says that it is connected, `close` with whatever
// the library tells of the end, `message` for what the app echoes, `beat` for a heartbeat of the library's own that it
// lets one see. It takes orders on stdin, one JSON object a line: {"send": TEXT} sends what the app echoes;
// {"hang": true} blocks the event loop until the next line comes. It ends with its stdin.
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

// A page that hangs: nothing runs on this thread until another line stands in stdin. What libraries do on threads of
// their own, and the kernel, goes on.
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
