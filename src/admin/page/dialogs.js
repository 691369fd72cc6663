// The dialogs (close a session, enter a token), the toasts, and the announcements for screen readers.
import { by, element, setText } from './dom.js';
import { plural } from './format.js';

const SHOWN = 7000;
const ANNOUNCE_EVERY = 3000;

// The effect of a close code on client libraries.
const MEANINGS = {
  1000: 'Code 1000 means a normal end: many clients do not reconnect after it.',
  1001: 'Code 1001 means that this end goes away; most client libraries that reconnect do so, JupyterLab does not.',
  1008: 'Code 1008 means that a rule was broken; most client libraries that reconnect do so.',
  1012: 'Code 1012 means a restart; client libraries that reconnect do so.',
};

// Returns whether a Close frame may carry `code` (RFC 6455, section 7.4).
const maySend = (code) =>
  (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);

// The dialog that confirms a close. `close(session, code, reason)` sends the command.
export class Kill {
  #session = null;
  #close;

  constructor(close) {
    this.#close = close;
    by('kill-no').addEventListener('click', () => by('kill').close());
    by('kill-code').addEventListener('input', () => this.#explain());
    by('kill-reason').addEventListener('input', () => this.#explain());
    by('kill-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#go();
    });
  }

  ask(session) {
    this.#session = session;
    setText(by('kill-who'), `${session.conn.client} on ${session.conn.path}`);
    by('kill-code').value = 1008;
    by('kill-reason').value = 'closed by the operator';
    setText(by('kill-error'), '');
    by('kill-yes').disabled = false;
    this.#explain();
    by('kill').showModal();
    // The cancel button has the focus, so that a key pressed twice does not close a connection.
    by('kill-no').focus();
  }

  #explain() {
    const code = Number(by('kill-code').value);
    const reason = by('kill-reason').value;
    const said = `${code}${reason ? ` “${reason}”` : ''}`;
    const long = new TextEncoder().encode(reason).length > 123;
    const wrong = !maySend(code)
      ? 'A Close may carry 1000–1003, 1007–1014 and 3000–4999.'
      : long
        ? 'A reason has at most 123 bytes.'
        : '';
    by('kill-yes').disabled = wrong !== '';
    setText(
      by('kill-what'),
      wrong ||
        `Both ends get a Close with ${said}. The app's own close handler runs, and what the client has not read yet may be ` +
          `lost. ${MEANINGS[code] ?? ''}`,
    );
  }

  async #go() {
    by('kill-yes').disabled = true;
    try {
      await this.#close(this.#session, Number(by('kill-code').value), by('kill-reason').value);
      by('kill').close();
    } catch (error) {
      setText(by('kill-error'), error.message);
      by('kill-yes').disabled = false;
    }
  }
}

// Asks for the token and resolves to it; `again` if the previous one was refused.
export function askToken(again) {
  const dialog = by('token');
  const text = by('token-text');
  if (again) setText(text, 'The token was refused. It is in the file that admin.token_file names.');
  by('token-input').value = '';
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    // The dialog cannot be cancelled: without a token the page has nothing to show.
    dialog.oncancel = (event) => event.preventDefault();
    by('token-form').onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      resolve(by('token-input').value.trim());
    };
  });
}

// Shows a notice for a few seconds.
export function toast(text, kind = '') {
  const note = element('div', `toast ${kind}`, text);
  by('toasts').append(note);
  while (by('toasts').childElementCount > 3) by('toasts').firstElementChild.remove();
  setTimeout(() => note.remove(), SHOWN);
}

// Announces closed sessions to screen readers: at most once per interval, the last one in full and the number of all.
export class Announcer {
  #closed = 0;
  #last = '';
  #waiting = false;

  closed(session) {
    this.#closed += 1;
    this.#last = `${session.conn.client}: ${session.conn.close.sentence}`;
    if (this.#waiting) return;
    this.#waiting = true;
    setTimeout(() => {
      this.#waiting = false;
      const many = this.#closed > 1 ? `${plural(this.#closed, 'connection')} closed, the last one: ` : 'Closed: ';
      setText(by('live'), many + this.#last);
      this.#closed = 0;
    }, ANNOUNCE_EVERY);
  }
}
