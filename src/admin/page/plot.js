// A plot of round trips over time as lines and of misses as marks. It is SVG, so that the style sheet sets the colours.
import { drawn, setAttribute } from './dom.js';
import { short } from './format.js';

const MARGIN = { top: 8, right: 8, bottom: 18, left: 52 };

export class Plot {
  #svg;
  #width = 0;
  #height = 0;
  #last = null;
  #read;
  #cursor = drawn('line', { class: 'cursor', visibility: 'hidden' });

  // `read(at)` is called with the time under the pointer (unix seconds), and with null when the pointer leaves.
  constructor(svg, read) {
    this.#svg = svg;
    this.#read = read;
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = contentRect.width;
      this.#height = contentRect.height;
      if (this.#last) this.draw(this.#last);
    }).observe(svg);
    svg.addEventListener('pointermove', (event) => this.#point(event));
    svg.addEventListener('pointerleave', () => this.#unpoint());
  }

  // `lines`: [{ name, points: [{ at, s }] }], `s` null without a value; `band`: whether to fill the area between the
  // first line and the second; `marks`: [{ at, many }]; `from` and `to` in unix seconds; `label`: the plot as text.
  draw(what) {
    this.#last = what;
    setAttribute(this.#svg, 'aria-label', what.label);
    if (this.#width < 80) return;
    const { lines, marks, band } = what;
    const { x, y, top } = this.#scales(what);
    const floor = this.#height - MARGIN.bottom;
    const parts = [];
    const known = lines.some(({ points }) => points.some(({ s }) => s !== null));
    for (const value of [0, top / 2, top]) {
      parts.push(drawn('line', { class: 'rule', x1: MARGIN.left, x2: this.#width - MARGIN.right, y1: y(value), y2: y(value) }));
      // Without values there is no scale.
      if (known) parts.push(drawn('text', { class: 'tick end', x: MARGIN.left - 8, y: y(value) + 4 }, value ? short(value) : '0'));
    }
    parts.push(drawn('text', { class: 'tick', x: MARGIN.left, y: this.#height - 3 }, before(what.to - what.from)));
    parts.push(drawn('text', { class: 'tick end', x: this.#width - MARGIN.right, y: this.#height - 3 }, what.end ?? 'now'));
    if (!known) {
      const middle = { x: (MARGIN.left + this.#width - MARGIN.right) / 2, y: y(top / 2) - 6 };
      parts.push(drawn('text', { class: 'tick middle', ...middle }, 'no round trip yet'));
    }
    if (band && lines.length > 1) {
      for (const [under, over] of pairs(runs(lines[0].points), runs(lines[1].points))) {
        const surface = [...over, ...under.toReversed()].map(({ at, s }) => `${x(at)} ${y(s)}`);
        parts.push(drawn('path', { class: 'band', d: `M${surface.join('L')}Z` }));
      }
    }
    for (const { at, many } of marks) {
      const height = Math.min(floor - MARGIN.top, many === undefined ? floor - MARGIN.top : 5 + many * 2);
      parts.push(drawn('line', { class: 'miss', x1: x(at), x2: x(at), y1: floor - height, y2: floor }));
      if (many === undefined) parts.push(drawn('circle', { class: 'miss', cx: x(at), cy: floor - height + 3, r: 3 }));
    }
    for (const { name, points } of lines) {
      for (const run of runs(points)) {
        const d = run.map(({ at, s }) => `${x(at)} ${y(s)}`).join('L');
        parts.push(drawn('path', { class: `line ${name}`, d: `M${d}` }));
        if (run.length < 40) {
          for (const { at, s } of run) parts.push(drawn('circle', { class: `dot ${name}`, cx: x(at), cy: y(s), r: 1.75 }));
        }
      }
    }
    this.#svg.replaceChildren(...parts, this.#cursor);
  }

  #scales({ lines, from, to }) {
    const most = Math.max(0.0002, ...lines.flatMap(({ points }) => points.map(({ s }) => s ?? 0)));
    const top = niceAbove(most);
    const across = this.#width - MARGIN.left - MARGIN.right;
    const up = this.#height - MARGIN.top - MARGIN.bottom;
    const fixed = (value) => Math.round(value * 10) / 10;
    return {
      top,
      x: (at) => fixed(MARGIN.left + (Math.min(Math.max(at - from, 0), to - from) / (to - from)) * across),
      y: (s) => fixed(MARGIN.top + (1 - s / top) * up),
    };
  }

  #point({ offsetX }) {
    if (!this.#last) return;
    const { from, to } = this.#last;
    const across = this.#width - MARGIN.left - MARGIN.right;
    const share = Math.min(Math.max((offsetX - MARGIN.left) / across, 0), 1);
    const x = MARGIN.left + share * across;
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: MARGIN.top, y2: this.#height - MARGIN.bottom })) {
      this.#cursor.setAttribute(name, value);
    }
    this.#cursor.setAttribute('visibility', 'visible');
    this.#read(from + share * (to - from));
  }

  #unpoint() {
    this.#cursor.setAttribute('visibility', 'hidden');
    this.#read(null);
  }
}

// Returns the point nearest to `at`.
export function nearest(points, at) {
  return points.reduce((best, point) => (!best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best), null);
}

// Splits `points` into runs without gaps.
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point.s === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((run) => run.length);
}

const pairs = (unders, overs) => unders.map((under, index) => [under, overs[index] ?? under]);

// Returns the next of 1, 2, 4, 6, 8, 10 times a power of ten from `value` up; their halves are round numbers too.
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

const before = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`);
