import { describe, expect, it } from "vitest";
import type { Compared, JobView, Metrics, RoundView, TrainingView } from "../src/ipc/types";
import { verdict } from "../src/screens/CompareFigure";
import { curveOf, drawn, failure, figuresByRound, judged, losses, tasksOf } from "../src/screens/rounds";

const training = (loss: number): TrainingView => ({
  rows: 10,
  subjects: 10,
  loss_before: loss,
  loss_after: loss - 0.1,
  one_class: false,
  largest_change: 0,
  clipped: 0,
  validation: null,
});

function round(
  task: string,
  number: number,
  attempt: number,
  view: RoundView["view"],
  at = number,
): RoundView {
  const key = { job: "j", task, epoch: 1, round: number, attempt };
  return { round: key, state: "published", reason: null, progress: null, note: null, view, at };
}

describe("losses", () => {
  it("are in order, with the last try of a round that was tried again", () => {
    const rounds = [
      round("train", 2, 2, { training: training(0.5) }),
      round("train", 2, 1, { training: training(9) }),
      round("train", 1, 1, { training: training(0.7) }),
      round("other", 1, 1, { training: training(0.3) }),
      round("train", 3, 1, null),
    ];
    const found = losses(rounds);
    expect([...found.keys()].sort()).toEqual(["other", "train"]);
    expect(found.get("train")?.map((row) => [row.round, row.before])).toEqual([
      [1, 0.7],
      [2, 0.5],
    ]);
  });
});

describe("figures by round", () => {
  function validated(rows: number, auc: number | null): RoundView["view"] {
    const metrics = { rows, correct: 3, brier_sum: 1, auc } as Metrics;
    return { training: { ...training(0.5), validation: { metrics } } };
  }

  it("are those of the model that came to a round, in order, and of the last try", () => {
    const found = figuresByRound([
      round("train", 2, 1, validated(6, 0.9)),
      round("train", 1, 1, validated(6, null)),
      round("train", 2, 2, validated(6, 0.8)),
      round("blind", 1, 1, { training: training(0.3) }),
    ]);
    expect([...found.keys()]).toEqual(["train"]);
    const rows = found.get("train") ?? [];
    expect(rows.map((row) => [row.round, row.rows, row.figures.get("accuracy")])).toEqual([
      [1, 6, 0.5],
      [2, 6, 0.5],
    ]);
    // Undefined in the first round, it is drawn from the second one on; what is never defined is not offered.
    expect(curveOf(rows, "auc")).toEqual([{ x: 2, y: 0.8 }]);
    expect(drawn(rows)).toEqual(["auc", "accuracy", "brier"]);
  });

  it("are also those of a fit, whose rounds each judge the coefficients that came", () => {
    const fit = (value: number) => ({ report: { regression: { rows: 9, log_likelihood: value } } });
    const found = figuresByRound([round("odds", 2, 1, fit(-4)), round("odds", 1, 1, fit(-7))]);
    expect(curveOf(found.get("odds") ?? [], "log_likelihood")).toEqual([
      { x: 1, y: -7 },
      { x: 2, y: -4 },
    ]);
  });
});

describe("reports", () => {
  const report = (rows: number) => ({ report: { regression: { rows, log_likelihood: -1 } } });

  it("are those of each task's newest round", () => {
    const found = judged([
      round("a", 1, 1, report(1), 1),
      round("a", 2, 1, report(2), 2),
      round("b", 1, 1, { failure: "short of memory" }, 3),
    ]);
    expect(found.map((of) => [of.task, of.round.round.round])).toEqual([["a", 2]]);
  });

  it("are told apart from failures", () => {
    expect(failure(round("b", 1, 1, { failure: "short of memory" }))).toBe("short of memory");
    expect(failure(round("b", 1, 1, report(1)))).toBeNull();
  });

  it("show a task in the state of its newest round", () => {
    const rounds = [round("a", 1, 1, null, 5), round("a", 2, 1, null, 9)];
    const [task] = tasksOf({ rounds } as JobView);
    expect(task?.newest.round.round).toBe(2);
  });
});

describe("a comparison", () => {
  const compared = (figure: string, low: number, high: number): Compared => ({
    figure,
    alone: 0.7,
    alone_interval: null,
    federated: 0.8,
    federated_interval: null,
    difference: 0.1,
    difference_interval: { low, high },
  });

  it("decides nothing while the interval of the difference holds zero, or is not known", () => {
    expect(verdict(compared("auc", -0.1, 0.3))).toBe("unclear");
    expect(verdict(compared("auc", 0, 0.3))).toBe("unclear");
    expect(verdict({ ...compared("auc", 1, 2), difference_interval: null })).toBe("unclear");
  });

  it("knows of which figures less is better", () => {
    expect(verdict(compared("auc", 0.1, 0.3))).toBe("better");
    expect(verdict(compared("auc", -0.3, -0.1))).toBe("worse");
    expect(verdict(compared("brier", -0.3, -0.1))).toBe("better");
    expect(verdict(compared("rmse", 0.1, 0.3))).toBe("worse");
  });
});
