import { describe, expect, it } from "vitest";
import { calibration, confusionAt, largest, median, missing, roc, share } from "../src/charts/curves";
import type { Metrics } from "../src/ipc/types";

/** Four bins: two positives high, one low; two negatives low, one high. */
const METRICS: Metrics = {
  rows: 6,
  positives: 3,
  correct: 4,
  loss_sum: 3,
  brier_sum: 1,
  confusion: [2, 1, 2, 1],
  auc: 7 / 9,
  scores_positive: [0, 1, 0, 2],
  scores_negative: [1, 1, 1, 0],
  calibration: [
    { rows: 0, score_sum: 0, positives: 0 },
    { rows: 4, score_sum: 1, positives: 1 },
  ],
};

describe("the ROC curve", () => {
  it("goes from nothing flagged to everything flagged, and never back", () => {
    const points = roc(METRICS);
    expect(points[0]).toEqual({ x: 0, y: 0 });
    expect(points.at(-1)).toEqual({ x: 1, y: 1 });
    for (const [at, point] of points.entries()) {
      const before = points[at - 1] ?? point;
      expect(point.x).toBeGreaterThanOrEqual(before.x);
      expect(point.y).toBeGreaterThanOrEqual(before.y);
    }
  });

  it("encloses the area that ranks give, ties counted half", () => {
    const points = roc(METRICS);
    let area = 0;
    for (const [at, point] of points.entries()) {
      const before = points[at - 1];
      if (before) area += (point.x - before.x) * ((point.y + before.y) / 2);
    }
    // Of nine pairs: two positives above all three negatives (6), the third above one (1), tied with one (½).
    expect(area).toBeCloseTo(7.5 / 9, 12);
  });

  it("is not drawn for one class", () => {
    expect(roc({ ...METRICS, scores_negative: [0, 0, 0, 0] })).toEqual([]);
  });
});

describe("the confusion at a threshold", () => {
  it("holds every row once, wherever the threshold is", () => {
    for (let bin = 0; bin <= 4; bin++) {
      const at = confusionAt(METRICS, bin);
      expect(at.truePositive + at.falseNegative).toBe(3);
      expect(at.falsePositive + at.trueNegative).toBe(3);
    }
  });

  it("flags everything at the lowest and nothing at the highest", () => {
    expect(confusionAt(METRICS, 0)).toMatchObject({ trueNegative: 0, falseNegative: 0 });
    expect(confusionAt(METRICS, 4)).toMatchObject({ truePositive: 0, falsePositive: 0 });
    expect(confusionAt(METRICS, 2)).toEqual({
      truePositive: 2,
      falsePositive: 1,
      trueNegative: 2,
      falseNegative: 1,
    });
  });
});

describe("calibration", () => {
  it("leaves out bins without rows", () => {
    expect(calibration(METRICS.calibration)).toEqual([{ x: 0.25, y: 0.25, rows: 4 }]);
  });
});

describe("a column", () => {
  const number = { min: 0, max: 4, mean: 2, sd: 1, edges: [0, 1, 2, 3, 4], counts: [1, 1, 4, 2] };

  it("has its median where half of the rows lie below", () => {
    expect(median(number)).toBeCloseTo(2.5, 12);
    expect(median({ ...number, counts: [1, null, 4, 2] })).toBeNull();
    expect(largest(number.counts)).toBe(2);
  });

  it("has no share of gaps without rows", () => {
    const column = { name: "a", kind: "number", present: 0, missing: 0, number: null, levels: [] };
    expect(missing(column)).toBeNull();
    expect(missing({ ...column, present: 3, missing: 1 })).toBe(0.25);
    expect(share(1, 0)).toBeNull();
  });
});
