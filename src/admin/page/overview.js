// All sessions together: the figures of the last second, and their round trips over the last minutes.
import { by, setClass, setText } from './dom.js';
import { bytes, count, plural, rate, short, timeOfDay } from './format.js';
import { Plot, nearest } from './plot.js';

// Seconds that the plot shows at most, and at least.
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

  // The statistics of one second.
  stats(told) {
    const before = this.#last;
    this.#last = told;
    this.#samples.push({ at: told.at, p50: told.rtt.p50_s ?? null, p99: told.rtt.p99_s ?? null });
    while (this.#samples.length > SHOWN + 5) this.#samples.shift();
    setText(by('f-open'), count(told.open));
    setText(by('f-missing'), count(told.missing));
    setClass(by('f-missing-box'), 'warned', told.missing > 0);
    setText(by('f-closed'), count(told.closed_total));
    setText(by('f-held'), bytes(told.buffered));
    if (!before || told.at <= before.at) return;
    const each = (way, what) => (told[way][what] - before[way][what]) / (told.at - before.at);
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

  // Another process has other figures.
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

  // What the lines say where somebody points, or now.
  #read() {
    const sample = this.#pointed === null ? this.#samples.at(-1) : nearest(this.#samples, this.#pointed);
    const when = this.#pointed === null || !sample ? '' : `${timeOfDay(sample.at)}: `;
    setText(by('all-read'), sample && sample.p50 !== null ? `${when}${short(sample.p50)} / ${short(sample.p99)}` : '');
  }
}
