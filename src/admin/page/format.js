// Formats numbers and times for display. Unknown values are shown as a dash.

const DASH = '–';
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const clockOnly = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const grouped = new Intl.NumberFormat();

const known = (value) => typeof value === 'number' && Number.isFinite(value);

// Formats a short time, given in seconds, with at most three figures: 0.15 ms, 3.2 ms, 41 ms, 1.24 s.
export function short(seconds) {
  if (!known(seconds)) return DASH;
  const ms = seconds * 1000;
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : long(seconds);
}

// Formats a duration, given in seconds: 4 s, 3 min 20 s, 35 min, 2 h 5 min, 3 d 4 h.
export function long(seconds) {
  if (!known(seconds)) return DASH;
  const whole = Math.max(0, Math.floor(seconds));
  const steps = [[86_400, 'd', 3600, 'h'], [3600, 'h', 60, 'min'], [60, 'min', 1, 's']];
  for (const [size, unit, next, lesser] of steps) {
    if (whole >= size) {
      const most = Math.floor(whole / size);
      const rest = Math.floor((whole % size) / next);
      return `${most} ${unit}${rest && most < 10 ? ` ${rest} ${lesser}` : ''}`;
    }
  }
  return `${whole} s`;
}

// Formats a configured duration, given in seconds: 5 s, 2.5 s, 400 ms, 1 min 30 s.
export function setting(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${Number(seconds.toFixed(1))} s` : long(seconds);
}

export function ago(seconds) {
  if (!known(seconds)) return DASH;
  return seconds < 1 ? 'now' : `${long(seconds)} ago`;
}

export function count(value) {
  return known(value) ? grouped.format(value) : DASH;
}

export function bytes(value) {
  if (!known(value)) return DASH;
  let rest = value;
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (rest < 999.5) return `${unit === 'B' || rest >= 99.5 ? rest.toFixed(0) : rest.toFixed(1)} ${unit}`;
    rest /= 1000;
  }
  return `${rest.toFixed(1)} TB`;
}

// Shortens an address with port in the middle if it is longer than one of IPv4. The port stays, because it
// distinguishes clients behind one address.
export const endpoint = (text) => (text.length > 21 ? `${text.slice(0, 10)}…${text.slice(-10)}` : text);

// Formats a rate per second with few figures.
export function rate(value) {
  if (!known(value)) return DASH;
  return value < 10 && value > 0 ? value.toFixed(1) : count(Math.round(value));
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

// Formats a date and time of day, given in unix seconds.
export const moment = (unix) => (known(unix) ? exact.format(unix * 1000) : DASH);
export const timeOfDay = (unix) => (known(unix) ? clockOnly.format(unix * 1000) : DASH);
