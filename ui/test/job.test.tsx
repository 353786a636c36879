// @vitest-environment jsdom
import { act } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type {
  DeviceView,
  JobView,
  LogLine,
  Metrics,
  RoundView,
  TaskView,
  TrainingView,
} from "../src/ipc/types";
import { Job } from "../src/screens/Job";
import { button, press, type Screen, settle, show, type } from "./stage";

const task = (name: string, component: string, from: string[], state: TaskView["state"], rounds: number) => ({
  name,
  component,
  inputs: from.map((other) => ({ port: "in", task: other, output: "out" })),
  state,
  rounds,
});

const JOB: JobView = {
  job: "job",
  study: "study",
  title: "A study",
  federation: "federation",
  state: "running",
  reason: null,
  paused: null,
  since: 1_000,
  rounds: [
    {
      round: { job: "job", task: "train", epoch: 1, round: 3, attempt: 1 },
      state: "working",
      reason: null,
      progress: [1, 4],
      note: "the graphics card failed; the processor goes on",
      view: null,
      at: 2_000,
    },
  ],
  rounds_in_all: 1,
  tasks: [
    task("read", "reader", [], null, 0),
    task("train", "nn_train", ["read", "read"], "working", 3),
    task("judge", "evaluation", ["read", "train"], "waiting", 0),
  ],
  protection: [],
  others: [],
  comparisons: [],
  model: null,
  released: null,
  held: false,
};

const LOG: LogLine[] = [
  { at: 1_000, level: "info", place: null, words: "job started" },
  { at: 2_000, level: "warning", place: "train 3", words: "permit refused: too few rows" },
  { at: 3_000, level: "error", place: "train 3", words: "the worker ended: out of memory" },
];

const DEVICE: DeviceView = {
  choice: "auto",
  decided_by: "people",
  cards: [],
  used: null,
  reason: "no driver was found",
  worker_memory_bytes: null,
  runs_at_a_time: 1,
};

let screen: Screen;

async function stand(job: JobView = JOB, egress: () => unknown = () => []): Promise<void> {
  screen = await show(<Job job="job" />, ["data_steward"], (command) => {
    if (command === "egress") return egress();
    if (command === "job") return job;
    if (command === "job_log") return LOG;
    if (command === "device") return DEVICE;
    return [];
  });
  await settle();
}

afterEach(() => screen.end());

/** Answers yes to the question in front of the screen. */
async function submit(): Promise<void> {
  await act(async () => document.querySelector<HTMLFormElement>("[role=dialog] form")?.requestSubmit());
  await settle(100);
}

const cells = (label: string) =>
  [...screen.place.querySelectorAll(`[aria-label="${label}"] tbody tr`)].map((row) =>
    [...row.children].map((cell) => cell.textContent),
  );

const lines = () =>
  [...screen.place.querySelectorAll('[aria-label="Log of this run"] li')].map((li) => li.textContent);

describe("a run", () => {
  it("lists every task of its plan with what it does, what it takes from, its state and its rounds", async () => {
    await stand();
    expect(cells("Tasks")).toEqual([
      ["read", "reads columns", "–", "Within those that take from it", "0"],
      ["train", "trains a network", "read", "Under way", "3"],
      ["judge", "judges the model", "read and train", "Not begun", "0"],
    ]);
  });

  it("says which of the other sites only the coordinator knows", async () => {
    const other = { site: "one", name: "Zurich", organisation: "Clinic", trust: "verified_here" } as const;
    const others = [other, { ...other, site: "two", name: "Basel", trust: "asserted_only" } as const];
    const protection = ["The coordinator can read this site's figures: they leave unmasked."];
    await stand({ ...JOB, protection, others });
    expect(screen.place.textContent).toContain("they leave unmasked");
    expect(screen.place.textContent).toContain("1 of 2 verified here");
    expect(screen.place.textContent).toContain("Asserted by the coordinator only: Basel.");
  });

  it("says the state of a task by a shape too", async () => {
    await stand();
    const shapes = [...screen.place.querySelectorAll('[aria-label="Tasks"] tbody td svg')].map(
      (svg) => svg.innerHTML,
    );
    expect(shapes).toHaveLength(2);
    expect(new Set(shapes).size).toBe(2);
  });

  it("shows its log newest last, and from a level on", async () => {
    await stand();
    expect(lines()).toHaveLength(3);
    expect(lines()[2]).toContain("the worker ended: out of memory");
    // Names of what happened are translated, and its reason is the engine's.
    expect(lines()[1]).toContain("Permit refused");
    expect(lines()[1]).toContain("too few rows");
    await press(screen.place.querySelector('input[type="radio"][value="warning"]'));
    expect(lines()).toHaveLength(2);
    await press(screen.place.querySelector('input[type="radio"][value="error"]'));
    expect(lines()).toHaveLength(1);
    expect(lines()[0]).toContain("train, round 3");
  });

  it("draws a figure over the rounds where the model is judged between them, and says where it is not", async () => {
    const trained = (task: string, number: number, auc: number | null): RoundView => {
      const metrics = { rows: 8, correct: 6, brier_sum: 2, auc } as Metrics;
      const training: TrainingView = {
        rows: 20,
        subjects: 20,
        loss_before: 0.7,
        loss_after: 0.6,
        one_class: false,
        largest_change: 0,
        clipped: 0,
        validation: auc === null ? null : { metrics },
      };
      const key = { job: "job", task, epoch: 1, round: number, attempt: 1 };
      return {
        round: key,
        state: "published",
        reason: null,
        progress: null,
        note: null,
        view: { training },
        at: number,
      };
    };
    const rounds = [
      trained("train", 1, 0.61),
      trained("train", 2, 0.74),
      trained("blind", 1, null),
      trained("never", 1, null),
    ];
    const tasks = [
      ...JOB.tasks,
      task("blind", "nn_train", ["read"], "working", 1),
      task("final", "evaluation", ["blind"], "waiting", 0),
    ];
    await stand({ ...JOB, rounds, rounds_in_all: 4, tasks });
    const captions = () => [...screen.place.querySelectorAll("figcaption")].map((said) => said.textContent);
    expect(captions()).toHaveLength(4);
    expect(captions()[1]).toBe(
      "Area under the ROC curve of the model that came to each round, on 8 rows of this site: 0.610 in round 1, " +
        "0.740 in round 2; lowest 0.610, highest 0.740.",
    );
    expect(screen.place.textContent?.match(/The model was not judged between these rounds/g)).toHaveLength(2);
    expect(screen.place.textContent?.match(/stand under Models/g)).toHaveLength(1);
    expect(screen.place.textContent?.match(/No task of the plan judges it/g)).toHaveLength(1);
    await press(screen.place.querySelector('input[type="radio"][value="accuracy"]'));
    expect(captions()[1]).toContain("Accuracy of the model that came to each round");
  });

  it("says on what is computed, and what is to know about it", async () => {
    await stand();
    expect(screen.place.textContent).toContain("Processor");
    expect(screen.place.textContent).toContain("no driver was found");
    expect(screen.place.textContent).toContain("the graphics card failed; the processor goes on");
  });

  it("says how much left, and that it may be more where not all was looked through", async () => {
    const item = { round: { job: "job" }, left: 1_500, bytes: 10, at: 5_000 };
    const items = [item, { ...item, left: null }, { ...item, round: { job: "other" } }, { ...item, at: 1 }];
    await stand(JOB, () => items);
    expect(screen.place.textContent).toContain("Left this site so far20 bytes");
    await screen.end();
    await stand(JOB, () => Array(50).fill(item));
    expect(screen.of("egress")).toHaveLength(20);
    expect(screen.place.textContent).toContain("Left this site so farat least 10 kB");
  });

  it("says why nobody can tell how much left", async () => {
    await stand(JOB, () => Promise.reject({ code: "store", words: "the disk is gone" }));
    expect(screen.place.textContent).toContain("the disk is gone");
    expect(screen.place.textContent).not.toContain("Left this site so far…");
  });

  it("is paused with a reason, says so, and the same button leads back", async () => {
    let now = JOB;
    screen = await show(<Job job="job" />, ["data_steward"], (command, args: { reason: string | null }) => {
      if (command === "pause_job") now = { ...JOB, paused: args.reason };
      if (command === "job") return now;
      if (command === "device") return DEVICE;
      return [];
    });
    await settle();
    expect(screen.place.textContent).not.toContain("sits out");
    const pause = button("Pause this run");
    await act(async () => pause?.focus());
    await press(pause);
    await type("reason", "the ward rests");
    await submit();
    expect(screen.of("pause_job")).toEqual([{ job: "job", reason: "the ward rests" }]);
    expect(screen.place.textContent).toContain("This site sits out the rounds of this run");
    expect(screen.place.textContent).toContain("the ward rests");
    expect(screen.place.textContent).toContain("Paused here");
    // The button is the same one, so that the focus is where it was.
    expect(document.activeElement).toBe(button("End the pause"));
    await press(button("End the pause"));
    await submit();
    expect(screen.of("pause_job").at(-1)).toEqual({ job: "job", reason: null });
    expect(screen.place.textContent).not.toContain("sits out");
  });

  it("is paused by nobody who may only look", async () => {
    screen = await show(<Job job="job" />, ["auditor"], (command) => {
      if (command === "jobs") return [{ ...JOB, paused: "the ward rests" }];
      return command === "device" ? DEVICE : [];
    });
    await settle();
    expect(screen.place.textContent).toContain("the ward rests");
    expect([button("End the pause"), button("Stop this run")]).toEqual([null, null]);
  });

  it("gives the focus to its heading where what was pressed is gone with what was done", async () => {
    let now = JOB;
    screen = await show(<Job job="job" />, ["data_steward"], (command) => {
      if (command === "cancel_job") now = { ...JOB, state: "cancelled" };
      if (command === "job") return now;
      if (command === "device") return DEVICE;
      return [];
    });
    await settle();
    const stop = button("Stop this run");
    await act(async () => stop?.focus());
    await press(stop);
    await type("reason", "not needed");
    await submit();
    await settle(300);
    expect(button("Stop this run")).toBeNull();
    expect(document.activeElement?.tagName).toBe("H1");
  });

  it("asks for no device once it has ended: nobody can tell any more", async () => {
    await stand({ ...JOB, state: "success" });
    expect(screen.of("device")).toEqual([]);
    expect(screen.of("job_log")).toEqual([{ job: "job" }]);
  });
});
