// What the rounds of a run say, put in order.
import type { Point } from "../charts/curves";
import type { Interval, JobView, Metrics, ReportView, RoundView, TrainingView } from "../ipc/types";

/** What the site's own people see of training in a round. */
export function training(round: RoundView): TrainingView | null {
  return round.view !== null && "training" in round.view ? round.view.training : null;
}

/** What they see of figures. */
export function report(round: RoundView): ReportView | null {
  return round.view !== null && "report" in round.view ? round.view.report : null;
}

/** Why a round failed, in full. */
export function failure(round: RoundView): string | null {
  return round.view !== null && "failure" in round.view ? round.view.failure : null;
}

/** What was found in the rounds of each task, round by round; of a round that was tried again, in its last try. */
function inOrder<T>(rounds: RoundView[], find: (round: RoundView) => T | null): Map<string, T[]> {
  const found = new Map<string, Map<number, { attempt: number; has: T }>>();
  for (const round of rounds) {
    const has = find(round);
    if (has === null) continue;
    const { task, round: number, attempt } = round.round;
    const of = found.get(task) ?? new Map<number, { attempt: number; has: T }>();
    if ((of.get(number)?.attempt ?? -1) < attempt) of.set(number, { attempt, has });
    found.set(task, of);
  }
  const sorted = (of: Map<number, { has: T }>) => [...of].sort(([a], [b]) => a - b).map(([, { has }]) => has);
  return new Map([...found].map(([task, of]) => [task, sorted(of)]));
}

export interface LossRow {
  round: number;
  before: number;
  after: number;
  rows: number;
}

/** Loss of each task that trains. */
export function losses(rounds: RoundView[]): Map<string, LossRow[]> {
  return inOrder(rounds, (round) => {
    const seen = training(round);
    if (seen === null) return null;
    return {
      round: round.round.round,
      before: seen.loss_before,
      after: seen.loss_after,
      rows: seen.rows,
    };
  });
}

export interface FigureRow {
  round: number;
  /** Rows on which the model was judged. */
  rows: number;
  /** By name; `null` where one is undefined. */
  figures: Map<string, number | null>;
}

/** Figures of the model that came to each round: of a training with rows for validation, and of a fit. */
export function figuresByRound(rounds: RoundView[]): Map<string, FigureRow[]> {
  return inOrder(rounds, (round) => {
    const of = training(round)?.validation ?? report(round);
    return of === null ? null : { round: round.round.round, rows: rowsOf(of), figures: figuresOf(of) };
  });
}

/** Figures that were defined in some round, the main one first. */
export function drawn(rows: FigureRow[]): string[] {
  const names = new Set(rows.flatMap(({ figures }) => [...figures.keys()]));
  return [...names].filter((name) => curveOf(rows, name).length > 0);
}

/** A figure as a curve over the rounds in which it was defined. */
export function curveOf(rows: FigureRow[], figure: string): Point[] {
  return rows.flatMap((row) => {
    const y = row.figures.get(figure) ?? null;
    return y === null ? [] : [{ x: row.round, y }];
  });
}

/** Loss with the model that came, as a curve. */
export function lossCurve(rows: LossRow[]): Point[] {
  return rows.map((row) => ({ x: row.round, y: row.before }));
}

export interface Judged {
  task: string;
  round: RoundView;
  report: ReportView;
}

/** Newest report of each task that judged a model. */
export function judged(rounds: RoundView[]): Judged[] {
  const found = new Map<string, Judged>();
  const newestFirst = [...rounds].sort((a, b) => b.at - a.at);
  for (const round of newestFirst) {
    const of = report(round);
    const { task } = round.round;
    if (of !== null && !found.has(task)) found.set(task, { task, round, report: of });
  }
  return [...found.values()];
}

/** Share of rows predicted rightly. */
export const accuracy = (m: Metrics): number => m.correct / Math.max(1, m.rows);
/** Brier score. */
export const brier = (m: Metrics): number => m.brier_sum / Math.max(1, m.rows);
/** Mean loss. */
export const loss = (m: Metrics): number => m.loss_sum / Math.max(1, m.rows);

/** Rows that a report is about. */
function rowsOf(report: ReportView): number {
  if ("grouped" in report) return rowsOf(report.grouped.all);
  if ("metrics" in report) return report.metrics.rows;
  if ("classes" in report) return report.classes.rows;
  if ("number" in report) return report.number.rows;
  if ("survival" in report) return report.survival.rows;
  if ("regression" in report) return report.regression.rows;
  return report.statistics.rows;
}

/** The main figures of a report by name; `null` where they are undefined. */
export function figuresOf(report: ReportView): Map<string, number | null> {
  if ("grouped" in report) return figuresOf(report.grouped.all);
  if ("metrics" in report) {
    const m = report.metrics;
    const slope = m.detail?.calibration?.slope ?? null;
    const list: [string, number | null][] = [
      ["auc", m.auc],
      ["accuracy", accuracy(m)],
      ["brier", brier(m)],
      ["calibration_slope", slope],
    ];
    return new Map(list);
  }
  if ("classes" in report) {
    const m = report.classes;
    return new Map([
      ["accuracy", m.correct / Math.max(1, m.rows)],
      ["macro_f1", m.macro_f1],
    ]);
  }
  if ("number" in report) {
    const { rmse, mae, r_squared } = report.number;
    return new Map([
      ["rmse", rmse],
      ["mae", mae],
      ["r_squared", r_squared],
    ]);
  }
  if ("survival" in report) return new Map([["c_index", report.survival.c_index]]);
  if ("regression" in report) return new Map([["log_likelihood", report.regression.log_likelihood]]);
  return new Map();
}

/** 95 % intervals of the figures of a report, of those that have one. */
export function intervalsOf(report: ReportView): Partial<Record<string, Interval>> {
  if ("grouped" in report) return intervalsOf(report.grouped.all);
  if ("metrics" in report) return report.metrics.detail?.intervals ?? {};
  if ("classes" in report) return report.classes.intervals;
  if ("number" in report) return report.number.intervals;
  if ("survival" in report) return report.survival.intervals;
  return {};
}

export interface TaskState {
  name: string;
  rounds: RoundView[];
  newest: RoundView;
}

/** Tasks of a run that had rounds here, the one that moved last first. */
export function tasksOf(job: JobView): TaskState[] {
  const found = new Map<string, RoundView[]>();
  for (const round of job.rounds) {
    found.set(round.round.task, [...(found.get(round.round.task) ?? []), round]);
  }
  const newest = (rounds: RoundView[]) => rounds.reduce((a, b) => (b.at > a.at ? b : a));
  return [...found].map(([name, rounds]) => ({ name, rounds, newest: newest(rounds) }));
}
