// Numbers, sizes and moments in the person's own format.
import { locale } from ".";

const formats = new Map<string, Intl.NumberFormat>();

function numbers(options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = locale() + JSON.stringify(options);
  const known = formats.get(key) ?? new Intl.NumberFormat(locale(), options);
  formats.set(key, known);
  return known;
}

/** A whole number with separators. */
export function count(value: number): string {
  return numbers({ maximumFractionDigits: 0 }).format(value);
}

/** A number with exactly so many digits after the separator. */
export function decimal(value: number, digits = 3): string {
  return numbers({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** Beyond these a number has more zeros than anybody counts. */
const [TINY, HUGE] = [1e-6, 1e12];

/** A number with at most four significant digits, with an exponent where it would be a row of zeros. */
export function brief(value: number): string {
  const size = Math.abs(value);
  const notation = value !== 0 && (size < TINY || size >= HUGE) ? "scientific" : "standard";
  return numbers({ maximumSignificantDigits: 4, notation }).format(value);
}

/** A number with all its digits. */
export function exactNumber(value: number): string {
  return numbers({ maximumSignificantDigits: 17 }).format(value);
}

/** A share of 1. */
export function percent(share: number, digits = 0): string {
  return numbers({ style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }).format(
    share,
  );
}

/** A level of intervals, such as 95 % or 99.9 %. */
export function level(share: number): string {
  return numbers({ style: "percent", maximumFractionDigits: 3 }).format(share);
}

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"] as const;

/** A size in the unit that fits, 1 kB being 1,000 bytes. */
export function bytes(value: number): string {
  let [size, unit] = [value, 0];
  while (size >= 999.5 && unit < UNITS.length - 1) [size, unit] = [size / 1000, unit + 1];
  const digits = unit === 0 || size >= 99.5 ? 0 : 1;
  // "64 bytes", not "64 byte"; the larger ones have signs.
  const unitDisplay = unit === 0 ? "long" : "short";
  const style = { style: "unit", unit: UNITS[unit] ?? "byte", unitDisplay } as const;
  return numbers({ ...style, maximumFractionDigits: digits }).format(size);
}

/** A size with all its digits, in bytes. */
export function exactBytes(value: number): string {
  const style = { style: "unit", unit: "byte", unitDisplay: "long" } as const;
  return numbers({ ...style, maximumFractionDigits: 0 }).format(value);
}

/** Day and time. */
export function moment(millis: number): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(millis);
}

/** Time of the day; with the day where that is another one than today. */
export function clock(millis: number, now: number): string {
  const isToday = new Date(millis).toDateString() === new Date(now).toDateString();
  return isToday ? new Intl.DateTimeFormat(locale(), { timeStyle: "short" }).format(millis) : moment(millis);
}

/** A day of the week, Monday being 0. */
export function weekday(at: number): string {
  // 2024 began with a Monday.
  return new Intl.DateTimeFormat(locale(), { weekday: "long", timeZone: "UTC" }).format(
    Date.UTC(2024, 0, 1 + at),
  );
}

/** Day, time and seconds. */
export function exactly(millis: number): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "medium" }).format(millis);
}

/** Day alone. */
export function day(millis: number): string {
  return new Intl.DateTimeFormat(locale(), { dateStyle: "medium" }).format(millis);
}

/** The day here, as files are named by it. */
export function dayStamp(millis: number): string {
  const at = new Date(millis);
  const two = (number: number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
];

/** How long ago, or in how long. */
export function distance(millis: number, now: number): string {
  const format = new Intl.RelativeTimeFormat(locale(), { numeric: "auto" });
  const apart = millis - now;
  for (const [unit, length] of STEPS) {
    if (Math.abs(apart) >= length) return format.format(Math.trunc(apart / length), unit);
  }
  return format.format(0, "minute");
}

const SECOND = ["second", 1_000] as const;
const LONGER = [["hour", 3_600_000] as const, ["minute", 60_000] as const];

/** How long something takes, in one unit. */
export function duration(millis: number): string {
  const [unit, length] = LONGER.find(([, length]) => millis >= length * 0.95) ?? SECOND;
  const style = { style: "unit", unit, unitDisplay: "long", maximumFractionDigits: 0 } as const;
  return numbers(style).format(Math.max(1, Math.round(millis / length)));
}

/** Items in a row, as the language joins them. */
export function list(items: string[]): string {
  return new Intl.ListFormat(locale(), { type: "conjunction" }).format(items);
}

/** A digest in groups of four. */
export function grouped(digest: string): string[] {
  return digest.match(/.{1,4}/g) ?? [];
}
