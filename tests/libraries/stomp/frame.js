// Frames of STOMP 1.2 with the subset that an echo needs: no escaped headers, and a body without NUL.

export const EOL = '\n';

// Returns the frames of one message, and `undefined` for each lone EOL between them.
export function* frames(message) {
  let rest = message;
  while (rest !== '') {
    if (rest.startsWith(EOL)) {
      yield undefined;
      rest = rest.slice(EOL.length);
      continue;
    }
    const end = rest.indexOf('\0');
    yield parse(rest.slice(0, end));
    rest = rest.slice(end + 1);
  }
}

export function frame(command, headers, body = '') {
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}`);
  return `${[command, ...lines].join(EOL)}${EOL}${EOL}${body}\0`;
}

function parse(text) {
  const [head] = text.split(`${EOL}${EOL}`, 1);
  const [command, ...lines] = head.split(EOL);
  const headers = Object.fromEntries(lines.map((line) => line.split(/:(.*)/s, 2)));
  return { command, headers, body: text.slice(head.length + 2 * EOL.length) };
}
