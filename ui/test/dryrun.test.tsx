// @vitest-environment jsdom
import axe from "axe-core";
import { afterEach, describe, expect, it } from "vitest";
import type { Attack, DryMessage, DryPayload, DryRunView, Review, Role, Told } from "../src/ipc/types";
import { DryRun } from "../src/screens/DryRun";
import { button, press, type Screen, settle, show } from "./stage";

let screen: Screen;

const REVIEW = { study: "study", state: "under_review", approvable: true } as unknown as Review;

const update: DryPayload = {
  digest: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
  bytes: 64,
  values: 14,
  withheld: {},
  cut: 2,
  preview: {
    update: {
      rows: 199,
      values: 14,
      further: 0,
      tensors: [
        { name: "0.weight", shape: [13, 1], first: [0.25, -0.5], min: -0.5, max: 0.25, norm: 0.75 },
        { name: "0.bias", shape: [1], first: [0.125], min: 0.125, max: 0.125, norm: 0.125 },
      ],
    },
  },
  attack: null,
  device: "cpu",
};

const figures: DryPayload = {
  ...update,
  digest: "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
  bytes: 90,
  values: 5,
  withheld: { scores_positive: "a rule", scores_negative: "a rule" },
  cut: 0,
  preview: { figures: { n: [104], confusion: [40, 12, 41, 11.5] } },
};

const message = (of: Partial<DryMessage>): DryMessage => ({
  task: "train",
  component: "nn_train",
  state: "done",
  rounds: 15,
  start: "plan",
  made: null,
  failure: null,
  ...of,
});

const DONE: DryRunView = {
  study: "study",
  dataset: "dataset",
  dataset_name: "Cleveland",
  by: "Stefan",
  at: 1_790_000_000_000,
  attack: false,
  state: "done",
  reason: null,
  waits: null,
  note: null,
  progress: null,
  runs: 1,
  messages: [
    message({ made: update }),
    message({ task: "eval", component: "evaluation", rounds: 1, start: "untrained", made: figures }),
  ],
  bytes: 154,
};

async function stand(
  tried: DryRunView | null,
  review: Partial<Review> = {},
  role: Role = "data_steward",
  organisation: string | null = null,
): Promise<void> {
  const card = <DryRun review={{ ...REVIEW, ...review }} dataset="dataset" />;
  screen = await show(card, [role], (command) => (command === "dry_run" ? tried : null), organisation);
}

const text = () => screen.place.textContent ?? "";

async function violations(): Promise<string[]> {
  const found = await axe.run(screen.place, { rules: { "color-contrast": { enabled: false } } });
  return found.violations.map((violation) => violation.id);
}

afterEach(() => screen.end());

describe("a request that nobody tried", () => {
  it("is tried on the chosen dataset, and the card says that nothing leaves", async () => {
    await stand(null);
    expect(text()).toContain("Nothing leaves, nothing is signed");
    expect(await violations()).toEqual([]);
    await press(button("Try it on this machine"));
    await settle();
    expect(screen.of("start_dry_run")).toEqual([{ study: "study", dataset: "dataset", attack: false }]);
    expect(button("Stop it")).toBeNull();
  });

  it("is tried with attacks, after it was said what they are and how long they take", async () => {
    await stand(null);
    expect(text()).toContain("what somebody who reads the updates could find out about single patients");
    await press(button("Try it with attacks"));
    await settle();
    expect(screen.of("start_dry_run")).toEqual([{ study: "study", dataset: "dataset", attack: true }]);
  });

  it("is not tried where a rule refuses it, and the card says why", async () => {
    await stand(null, { approvable: false });
    expect((button("Try it on this machine") as HTMLButtonElement).disabled).toBe(true);
    expect(text()).toContain("A rule above refuses this request");
  });

  it("is not offered where nothing is to be decided", async () => {
    await stand(null, { state: "active" });
    expect(text()).toBe("");
  });

  it("is not offered, and not asked for, to who may not see the data", async () => {
    for (const role of ["administrator", "auditor"] as const) {
      await stand(null, {}, role);
      expect([text(), screen.of("dry_run").length], role).toEqual(["", 0]);
      await screen.end();
    }
    await stand(null, {}, "data_access_approver", "Another clinic");
    expect([text(), screen.of("dry_run").length]).toEqual(["", 0]);
  });
});

describe("a dry run under way", () => {
  const RUNNING: DryRunView = {
    ...DONE,
    state: "running",
    progress: [25, 100],
    messages: [message({ state: "working" }), message({ task: "eval", state: "waiting" })],
    bytes: 0,
  };

  it("shows how far it is, and is stopped", async () => {
    await stand(RUNNING);
    expect(text()).toContain("Computing what train would send.");
    const progress = screen.place.querySelector("progress");
    const label = progress?.getAttribute("aria-label");
    expect([progress?.value, progress?.max, label]).toEqual([25, 100, "Part of this task that is computed"]);
    expect(button("Try it again")).toBeNull();
    expect(await violations()).toEqual([]);
    await press(button("Stop it"));
    await settle();
    expect(screen.of("stop_dry_run")).toEqual([{ study: "study" }]);
  });

  it("says what it waits for", async () => {
    const waiting: DryRunView = { ...RUNNING, state: "waiting", progress: null };
    for (const [waits, words] of [
      [null, "It waits for the machine."],
      ["rounds", "a round that a federation waits for goes first"],
      [{ quiet_hours: { until: 1_790_000_000_000 } }, "quiet hours"],
    ] as const) {
      await stand({ ...waiting, waits });
      expect(text()).toContain(words);
      await screen.end();
    }
    await stand({ ...waiting, note: "the graphics card failed; the processor goes on" });
    expect(text()).toContain("the graphics card failed");
  });
});

describe("a dry run that is done", () => {
  it("shows each message: numbers, bytes, what a rule holds back, its digest, and what is in it", async () => {
    await stand(DONE);
    expect(text()).toContain("2 messages, 154 bytes together, would leave.");
    const rows = [...screen.place.querySelectorAll("tbody tr")].map((row) =>
      [...row.children].map((cell) => cell.textContent),
    );
    expect(rows).toContainEqual(["train", "trains a network", "Done", "15", "14", "64", "0"]);
    expect(rows).toContainEqual(["eval", "judges the model", "Done", "1", "5", "90", "2"]);
    expect(rows).toContainEqual(["0.weight", "13 × 1", "-0.5", "0.25", "0.75", "0.25; -0.5"]);
    expect(rows).toContainEqual(["confusion", "40; 12; 41; 11.5"]);
    for (const words of [
      "weighed by 199 rows",
      "2 numbers moved by more than the plan allows",
      "No rule holds anything of it back.",
      "2 figures are held back by a rule: scores_positive and scores_negative.",
      "What is judged here is the model that training begins with.",
      "0123",
      "fedc",
    ]) {
      expect(text(), words).toContain(words);
    }
    expect(await violations()).toEqual([]);
    await press(button("Forget the result"));
    await settle();
    expect(screen.of("stop_dry_run")).toEqual([{ study: "study" }]);
  });

  it("says of how many runs it is the first, and what stood in for a model that is not here", async () => {
    await stand({ ...DONE, runs: 6, messages: [message({ made: update, start: "stand_in" })] });
    expect(text()).toContain("The study asks for 6 runs; this is the first of them.");
    expect(text()).toContain("Values drawn by the plan stood in for it");
  });

  it("lists the first tensors of a deep network and counts the others", async () => {
    const tensors = Array.from({ length: 30 }, (_, at) => ({
      name: `${at}.weight`,
      shape: [1],
      first: [0],
      min: 0,
      max: 0,
      norm: 0,
    }));
    const preview = { update: { rows: 1, values: 130, further: 100, tensors } };
    await stand({ ...DONE, messages: [message({ made: { ...update, preview, cut: 0 } })] });
    expect(text()).toContain("19.weight");
    expect(text()).not.toContain("20.weight");
    expect(text()).toContain("110 further tensors are not shown.");
  });

  it("stays to be read after the decision, and is not made again", async () => {
    await stand(DONE, { state: "active" });
    expect(text()).toContain("2 messages");
    expect(button("Try it again")).toBeNull();
  });
});

describe("a dry run with attacks", () => {
  const told = (auc: number, low: number, advantage: number, high: number): Told => ({
    auc,
    auc_interval: { low: auc - 0.05, high: auc + 0.05 },
    advantage,
    advantage_interval: { low, high },
  });

  async function attacked(attack: Attack): Promise<void> {
    const messages = [message({ made: { ...update, attack } })];
    await stand({ ...DONE, attack: true, messages });
  }

  it("says in one sentence each what they tell, with scores and intervals, and what that is worth", async () => {
    await attacked({
      found: {
        subjects: 199,
        repeats: 8,
        rounds: 15,
        planned: 15,
        membership: [
          { guard: "none", by_loss: told(0.6, 0.05, 0.12, 0.2), compared: told(0.8, 0.4, 0.5, 0.6) },
          {
            guard: { masked: { sites: 3 } },
            by_loss: told(0.5, -0.1, 0, 0.1),
            compared: told(0.52, -0.04, 0.03, 0.1),
          },
        ],
        inversion: [{ guard: "none", columns: 13, recovered: 1, guessed: 0.4 }],
      },
    });
    for (const words of [
      "The update as it is: whether a patient was trained on can be told better than by guessing, rightly for about 75 of 100",
      "A sum over 3 sites: these attacks cannot tell whether a patient was trained on.",
      "100% of its 13 columns are found. Guessing by each column's values finds 40%.",
      "This is an aid and no proof.",
    ]) {
      expect(text(), words).toContain(words);
    }
    const rows = [...screen.place.querySelectorAll("tbody tr")].map((row) =>
      [...row.children].map((cell) => cell.textContent),
    );
    expect(rows).toContainEqual([
      "The update as it is",
      "By comparing with other models",
      "0.80 (95 % from 0.75 to 0.85)",
      "0.50 (95 % from 0.40 to 0.60)",
    ]);
    expect(await violations()).toEqual([]);
  });

  it("says why they say nothing, without a number of theirs", async () => {
    for (const [attack, words] of [
      [{ too_few: { subjects: 12, least: 60 } }, "Too few patients to say: 12 of at least 60."],
      [{ too_slow: { seconds: 60 } }, "60 seconds"],
      [{ untried: "kept_layers" }, "Layers of the model stay at this site"],
    ] as const) {
      await attacked(attack);
      expect(text()).toContain("The attacks say nothing here, for or against it");
      expect(text()).toContain(words);
      expect(text()).not.toContain("ROC");
      await screen.end();
    }
    await stand(DONE);
  });
});

describe("a dry run that did not get through", () => {
  it("says who or what stopped it, and can be made again", async () => {
    const reason = "somebody of this site stopped it";
    await stand({ ...DONE, state: "stopped", reason, messages: [], bytes: 0 });
    expect(text()).toContain("The dry run was stopped");
    expect(text()).toContain("Somebody of this site stopped it.");
    await press(button("Try it again"));
    await settle();
    expect(screen.of("start_dry_run")).toHaveLength(1);
  });

  it("shows a task that a rule refuses beside those that were made", async () => {
    const failure = "task 'train': disclosure.min_subset refuses it";
    await stand({ ...DONE, messages: [message({ state: "failed", failure }), ...DONE.messages.slice(1)] });
    expect(text()).toContain("Nothing would leave");
    expect(text()).toContain(failure);
    expect(text()).toContain("confusion");
    expect(await violations()).toEqual([]);
  });
});
