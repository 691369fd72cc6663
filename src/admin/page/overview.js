// The overview of all sessions: the figures of the last second, and the round trips of the last minutes.
import { by, setClass, setText } from './dom.js';
import { bytes, count, plural, rate, short, timeOfDay } from './format.js';
import { Plot, nearest } from './plot.js';

// The longest and the shortest period of the plot, in seconds.
const SHOWN = 300;
const SHOWN_AT_FIRST = 60;

export class Overview {
  #samples = []; // { at, p50, p99 }
  #misses = new Map(); // second → how many
  #last = null;
  #pointed = null;
  #plot = new Plot(by('all-plot'), (at) => {
    this.#pointed = at;
    this.#read();
  });

  // Shows the statistics of one second.
  stats(sample) {
    const before = this.#last;
    this.#last = sample;
    this.#samples.push({ at: sample.at, p50: sample.rtt.p50_s ?? null, p99: sample.rtt.p99_s ?? null });
    while (this.#samples.length > SHOWN + 5) this.#samples.shift();
    setText(by('f-open'), count(sample.open));
    setText(by('f-missing'), count(sample.missing));
    setClass(by('f-missing-box'), 'warned', sample.missing > 0);
    setText(by('f-closed'), count(sample.closed_total));
    setText(by('f-held'), bytes(sample.buffered));
    if (!before || sample.at <= before.at) return;
    const each = (way, what) => (sample[way][what] - before[way][what]) / (sample.at - before.at);
    setText(by('f-msgs'), `↑ ${rate(each('in', 'msgs'))}\n↓ ${rate(each('out', 'msgs'))}`);
    setText(by('f-bytes'), `↑ ${bytes(each('in', 'bytes'))}\n↓ ${bytes(each('out', 'bytes'))}`);
  }

  missed(at) {
    const second = Math.floor(at);
    this.#misses.set(second, (this.#misses.get(second) ?? 0) + 1);
    for (const old of this.#misses.keys()) {
      if (old >= second - SHOWN) break;
      this.#misses.delete(old);
    }
  }

  // Clears the figures, after a restart of the proxy.
  clear() {
    this.#last = null;
    this.#samples = [];
    this.#misses.clear();
  }

  render(now) {
    const began = this.#samples[0]?.at ?? now;
    const from = now - Math.min(SHOWN, Math.max(SHOWN_AT_FIRST, now - began));
    const since = (key) => this.#samples.filter(({ at }) => at >= from).map((sample) => ({ at: sample.at, s: sample[key] }));
    const marks = [...this.#misses].filter(([at]) => at >= from).map(([at, many]) => ({ at, many }));
    const rtt = this.#last?.rtt;
    const missed = marks.reduce((sum, { many }) => sum + many, 0);
    this.#plot.draw({
      lines: [{ name: 'p50', points: since('p50') }, { name: 'p99', points: since('p99') }],
      band: true,
      marks,
      from,
      to: now,
      label: `Round trips of all: half are below ${short(rtt?.p50_s)}, 99 in 100 below ${short(rtt?.p99_s)}; ${plural(missed, 'missed beat')} in sight`,
    });
    this.#read();
  }

  // Shows the values at the pointer, otherwise the latest.
  #read() {
    const sample = this.#pointed === null ? this.#samples.at(-1) : nearest(this.#samples, this.#pointed);
    const when = this.#pointed === null || !sample ? '' : `${timeOfDay(sample.at)}: `;
    setText(by('all-read'), sample && sample.p50 !== null ? `${when}${short(sample.p50)} / ${short(sample.p99)}` : '');
  }
}
