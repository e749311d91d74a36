// format.js writes numbers with their units, as people read them.

const none = "–";

// duration returns seconds as "0.42 ms", "41 s" or "3 h 10 min".
export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return none;
  if (seconds < 0.9995) return `${significant(seconds * 1000)} ms`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

// share returns 0..1 as a percentage.
export function share(value) {
  if (value == null) return none;
  if (value > 0 && value < 0.01) return `${(value * 100).toFixed(1)} %`;
  return `${Math.round(value * 100)} %`;
}

// rate returns bytes per second with a unit.
export function rate(bytes) {
  return bytes == null ? none : `${size(bytes)}/s`;
}

// size returns bytes with a decimal unit.
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) {
    bytes /= 1000;
    unit++;
  }
  return `${unit ? significant(bytes) : Math.round(bytes)} ${units[unit]}`;
}

// mtu returns bytes, or a dash where no size was measured.
export const mtu = (bytes) => (bytes ? String(bytes) : none);

// age returns the seconds since a moment, or undefined without a moment.
export function age(moment, now = Date.now()) {
  return moment ? Math.max(0, (now - Date.parse(moment)) / 1000) : undefined;
}

// clock returns the time of day of a moment, with the date unless it is today.
export function clock(moment) {
  const at = new Date(moment);
  const time = at.toTimeString().slice(0, 8);
  return at.toDateString() === new Date().toDateString() ? time : `${at.toISOString().slice(0, 10)} ${time}`;
}

// count returns a number with its noun.
export const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

// significant returns three significant digits at most.
function significant(value) {
  if (value >= 99.5) return String(Math.round(value));
  return String(Number(value.toPrecision(value >= 9.95 ? 3 : 2)));
}
