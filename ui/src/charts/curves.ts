// What follows from an evaluation's sums: curves, and the table at any threshold. Scores are counted in bins of equal width.
import type { CalibrationBin, ColumnProfile, Metrics, NumberProfile } from "../ipc/types";

export interface Point {
  x: number;
  y: number;
}

const sum = (list: readonly number[]) => list.reduce((total, n) => total + n, 0);

/** ROC curve by bins, from the highest scores to the lowest: false-positive rate, true-positive rate. */
export function roc({ scores_positive: positive, scores_negative: negative }: Metrics): Point[] {
  const [p, n] = [sum(positive), sum(negative)];
  if (p === 0 || n === 0) return [];
  let [hits, alarms] = [0, 0];
  const points: Point[] = [{ x: 0, y: 0 }];
  for (let bin = positive.length - 1; bin >= 0; bin--) {
    const [more, wrong] = [positive[bin] ?? 0, negative[bin] ?? 0];
    if (more === 0 && wrong === 0) continue;
    hits += more;
    alarms += wrong;
    points.push({ x: alarms / n, y: hits / p });
  }
  return points;
}

export interface Confusion {
  truePositive: number;
  falsePositive: number;
  trueNegative: number;
  falseNegative: number;
}

/** Rows by label and prediction where scores in bins from `bin` on count as positive. */
export function confusionAt({ scores_positive, scores_negative }: Metrics, bin: number): Confusion {
  return {
    truePositive: sum(scores_positive.slice(bin)),
    falsePositive: sum(scores_negative.slice(bin)),
    trueNegative: sum(scores_negative.slice(0, bin)),
    falseNegative: sum(scores_positive.slice(0, bin)),
  };
}

/** A share, or nothing where there is nothing to share. */
export function share(part: number, whole: number): number | null {
  return whole > 0 ? part / whole : null;
}

/** Mean score against share of positive rows, for bins that have rows. */
export function calibration(bins: CalibrationBin[]): (Point & { rows: number })[] {
  return bins
    .filter((bin) => bin.rows > 0)
    .map((bin) => ({ x: bin.score_sum / bin.rows, y: bin.positives / bin.rows, rows: bin.rows }));
}

/** The bar that stands highest. */
export function largest(counts: readonly (number | null)[]): number {
  let best = 0;
  counts.forEach((n, at) => {
    if ((n ?? 0) > (counts[best] ?? 0)) best = at;
  });
  return best;
}

/** Middle of a histogram: the edge below which half of the rows lie, between its bin's edges. */
export function median({ edges, counts }: NumberProfile): number | null {
  const half = sum(counts.map((n) => n ?? 0)) / 2;
  let below = 0;
  for (const [bin, n] of counts.entries()) {
    const [from, to] = [edges[bin], edges[bin + 1]];
    if (n === null || from === undefined || to === undefined) return null;
    if (n > 0 && below + n >= half) return from + ((half - below) / n) * (to - from);
    below += n;
  }
  return null;
}

/** Share of rows without a value. */
export function missing({ present, missing: gaps }: ColumnProfile): number | null {
  return share(gaps, present + gaps);
}
