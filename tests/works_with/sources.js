// The sources of a page in the folder SOURCES, and the order to edit one: {"edit": TEXT} on stdin is what a developer
// saves. The page logs `open` when it is loaded, and `message` for each update that arrives without a reload.
import { realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export function sources(files) {
  const folder = realpathSync(process.env.SOURCES);
  const write = (name, content) => writeFileSync(join(folder, name), content);
  const edit = (text) => write('text.js', `export const text = ${JSON.stringify(text)};\n`);
  edit('');
  for (const [name, content] of Object.entries(files)) write(name, content);
  createInterface({ input: process.stdin }).on('line', (line) => edit(JSON.parse(line).edit));
  return folder;
}
