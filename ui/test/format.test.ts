// @vitest-environment jsdom
import { beforeAll, describe, expect, it } from "vitest";
import { speak } from "../src/i18n";
import {
  brief,
  bytes,
  count,
  dayStamp,
  decimal,
  distance,
  duration,
  exactBytes,
  grouped,
  level,
  percent,
} from "../src/i18n/format";

/** Thin, narrow and no-break blanks are a matter of the platform's tables. */
const plain = (text: string) => text.replaceAll(/[\u00a0\u202f\u2009]/g, " ");

describe("numbers in English", () => {
  beforeAll(() => speak("en"));

  it("come in the unit that fits", () => {
    expect([0, 999, 1_000, 4_096, 999_400, 1_000_000, 48_212].map(bytes)).toEqual([
      "0 bytes",
      "999 bytes",
      "1 kB",
      "4.1 kB",
      "999 kB",
      "1 MB",
      "48.2 kB",
    ]);
  });

  it("are separated, rounded and shortened", () => {
    expect([count(1_234_567), decimal(0.88649), brief(0.0123456), percent(0.456, 1)]).toEqual([
      "1,234,567",
      "0.886",
      "0.01235",
      "45.6%",
    ]);
  });

  it("have an exponent where they would be a row of zeros", () => {
    expect([brief(1.2346e300), brief(-2e-9), brief(0), brief(123_456)]).toEqual([
      "1.235E300",
      "-2E-9",
      "0",
      "123,500",
    ]);
  });

  it("name the day here, whatever day it is elsewhere", () => {
    const [first, last] = [new Date(2027, 0, 5, 0, 10), new Date(2027, 11, 31, 23, 50)];
    expect([dayStamp(first.getTime()), dayStamp(last.getTime())]).toEqual(["2027-01-05", "2027-12-31"]);
  });

  it("of a level say which it is", () => {
    expect([level(0.95), level(0.975), level(0.999)]).toEqual(["95%", "97.5%", "99.9%"]);
  });

  it("say how long something takes", () => {
    expect([400, 12_400, 59_000, 90_000, 5_400_000].map(duration)).toEqual([
      "1 second",
      "12 seconds",
      "1 minute",
      "2 minutes",
      "2 hours",
    ]);
  });

  it("say how far away a moment is", () => {
    const now = Date.UTC(2026, 0, 10);
    expect(distance(now + 8 * 86_400_000, now)).toBe("in 8 days");
    expect(distance(now - 3_600_000, now)).toBe("1 hour ago");
    expect(distance(now + 20_000, now)).toBe("this minute");
  });
});

describe("numbers in German", () => {
  beforeAll(() => speak("de"));

  it("have the German comma", () => {
    expect([count(1_234_567), decimal(0.88649), bytes(4_096), exactBytes(20_970)].map(plain)).toEqual([
      "1.234.567",
      "0,886",
      "4,1 kB",
      "20.970 Byte",
    ]);
  });
});

describe("digests", () => {
  it("stand in groups of four, whole", () => {
    const digest = "0123456789abcdef".repeat(4);
    expect(grouped(digest)).toHaveLength(16);
    expect(grouped(digest).join("")).toBe(digest);
  });
});
