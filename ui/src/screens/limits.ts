// Limits of training as a person fills them in, and as the engine has them.
import { useTranslation } from "react-i18next";
import { list, weekday } from "../i18n/format";
import type { ComputeLimits, QuietHours, Weekday } from "../ipc/types";

/** Days of the week in the engine's order. */
export const WEEKDAYS: Weekday[] = [
  "monday",
  "tuesday",
  "wednesday",
  "thursday",
  "friday",
  "saturday",
  "sunday",
];

/** Most windows of quiet hours; `WINDOWS` of the engine. */
export const MOST_WINDOWS = 28;
/** Least share of the machine's time, in percent; the engine's own rule. */
export const LEAST_SHARE = 5;

/** Quiet hours as fields hold them. */
export interface Window {
  /** For the page only. */
  id: number;
  days: Weekday[];
  /** `18:00`; empty while it is being typed. */
  from: string;
  to: string;
}

export interface Limits {
  quiet: Window[];
  share: number;
  /** Empty for all. */
  threads: string;
  yields: boolean;
}

/** Minutes after midnight as a time field has them. */
export function timeOf(minutes: number): string {
  const two = (part: number) => String(part).padStart(2, "0");
  return `${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}

/** And back; null for what is no time. */
export function minutesOf(time: string): number | null {
  const [, hours, minutes] = /^([01]\d|2[0-3]):([0-5]\d)/.exec(time) ?? [];
  return hours === undefined || minutes === undefined ? null : Number(hours) * 60 + Number(minutes);
}

export function fillIn(limits: ComputeLimits): Limits {
  return {
    quiet: limits.quiet.map(({ days, from, to }, id) => ({ id, days, from: timeOf(from), to: timeOf(to) })),
    share: limits.share,
    threads: limits.threads === null ? "" : String(limits.threads),
    yields: limits.yields,
  };
}

/** Whether a window is one of these quiet hours. */
export function isAmong(window: Window, quiet: QuietHours[]): boolean {
  const [from, to] = [minutesOf(window.from), minutesOf(window.to)];
  const isOf = (days: Weekday[]) =>
    days.length === window.days.length && days.every((day) => window.days.includes(day));
  return quiet.some((hours) => hours.from === from && hours.to === to && isOf(hours.days));
}

/** What is asked of the engine; null while a window lacks a day or a time, or the threads are no number. */
export function readOut(limits: Limits): ComputeLimits | null {
  const quiet: QuietHours[] = [];
  for (const window of limits.quiet) {
    const [from, to] = [minutesOf(window.from), minutesOf(window.to)];
    if (window.days.length === 0 || from === null || to === null) return null;
    quiet.push({ days: WEEKDAYS.filter((day) => window.days.includes(day)), from, to });
  }
  const typed = limits.threads.trim();
  if (typed !== "" && !/^[1-9]\d{0,3}$/.test(typed)) return null;
  const threads = typed === "" ? null : Number(typed);
  return { quiet, share: limits.share, threads, yields: limits.yields };
}

/** Quiet hours in words. */
export function useHours() {
  const { t } = useTranslation();
  return ({ days, from, to }: QuietHours) =>
    t(to > from ? "machine.hours" : "machine.hoursOver", {
      days: list(days.map((day) => weekday(WEEKDAYS.indexOf(day)))),
      from: timeOf(from),
      to: timeOf(to),
    });
}
