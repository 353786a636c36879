// @vitest-environment jsdom
import axe from "axe-core";
import { afterEach, describe, expect, it } from "vitest";
import type { JobView, PredictionMade, PredictionOffer, Role } from "../src/ipc/types";
import { Predict } from "../src/screens/Predict";
import { button, press, type Screen, settle, show } from "./stage";

let screen: Screen;

const job = { job: "job-1", title: "Heart disease risk", model: "0123456789abcdef" } as unknown as JobView;
const cardiology = { dataset: "d-1", name: "Cardiology", missing: [] as string[] };
const offer: PredictionOffer = { allowed: true, against: null, datasets: [cardiology], under_way: null };
const made: PredictionMade = {
  notice: "Research use only, not for diagnosis or treatment.",
  model: "0123456789abcdef",
  purpose: "Learn a model.",
  rows: 1_300,
  incomplete: 2,
  opted_out: 1,
  opted_out_since: 0,
  bytes: 40_000,
  digest: "feedbeef",
};
const place = { file: "file-1", name: "scores.csv", bytes: null };

async function stand(
  of: Partial<PredictionOffer>,
  answers: Record<string, unknown> = {},
  role: Role = "data_steward",
  organisation: string | null = null,
): Promise<void> {
  const answer = (command: string) =>
    command === "prediction" ? { ...offer, ...of } : (answers[command] ?? null);
  screen = await show(<Predict job={job} />, [role], answer, organisation);
}

/** What axe finds; of colours it sees nothing here. */
async function violations(): Promise<string[]> {
  const found = await axe.run(screen.place, { rules: { "color-contrast": { enabled: false } } });
  return found.violations.map((violation) => violation.id);
}

const words = () => screen.place.textContent ?? "";

afterEach(() => screen.end());

describe("a model used on this site's data", () => {
  it("is off until the policy allows it, and says how that is done", async () => {
    await stand({ allowed: false });
    expect(words()).toContain("Research use only, not for diagnosis or treatment.");
    expect(words()).toContain("This site's policy does not allow it");
    expect(words()).toContain("two people sign that");
    expect(button("Choose a place and predict")).toBeNull();
    expect(await violations()).toEqual([]);
  });

  it("says why a model cannot be used", async () => {
    await stand({ against: "the dataset on which this site trained the model was removed", datasets: [] });
    expect(words()).toContain("trained the model was removed");
    expect(button("Choose a place and predict")).toBeNull();
    expect(await violations()).toEqual([]);
  });

  it("goes into the file that a person chose, and is marked there and here", async () => {
    await stand({}, { choose_place: place, predict: made });
    await press(button("Choose a place and predict"));
    await settle();
    expect(screen.of("choose_place")).toEqual([
      { purpose: "predictions", suggested: "Cardiology-01234567.csv" },
    ]);
    expect(screen.of("predict")).toEqual([{ job: "job-1", dataset: "d-1", path: "file-1" }]);
    expect(words()).toContain("The model's outputs were written to scores.csv");
    expect(words()).toContain("Purpose: Learn a model.");
    expect(words()).toContain("1,300 rows with an output, 40 kB.");
    expect(words()).toContain("2 rows lack a value");
    expect(words()).toContain("1 row of somebody who opted out is not in it");
    expect(words()).not.toContain("since this site trained");
    expect(words().split("Research use only").length).toBe(3);
    expect(await violations()).toEqual([]);
  });

  it("is made of nothing when the dialog is closed", async () => {
    await stand({}, { choose_place: null });
    await press(button("Choose a place and predict"));
    await settle();
    expect(screen.of("predict")).toEqual([]);
  });

  it("names the columns that a dataset lacks, and offers it for nothing", async () => {
    await stand({ datasets: [{ ...cardiology, missing: ["oldpeak", "chol"] }] });
    expect(words()).toContain("columns that this dataset lacks: oldpeak, chol");
    await press(button("Choose a place and predict"));
    await settle();
    expect(screen.of("choose_place")).toEqual([]);
    expect(await violations()).toEqual([]);
  });

  it("asks which of several datasets is meant", async () => {
    await stand({ datasets: [cardiology, { ...cardiology, dataset: "d-2", name: "Surgery" }] });
    expect(words()).toContain("Choose a dataset");
    await press(button("Choose a place and predict"));
    await settle();
    expect(screen.of("choose_place")).toEqual([]);
  });

  it("shows how far it is, and can be stopped, whoever began it", async () => {
    await stand({ under_way: 40 });
    expect(screen.place.querySelector("progress")?.value).toBe(40);
    expect(await violations()).toEqual([]);
    await press(button("Choose a place and predict"));
    await settle();
    expect(screen.of("choose_place")).toEqual([]);
    await press(button("Stop the prediction"));
    await settle();
    expect(screen.of("stop_predicting")).toEqual([{}]);
  });

  it("is for data steward and data-access approver of this organisation", async () => {
    for (const [role, organisation] of [
      ["privacy_officer", null],
      ["auditor", null],
      ["data_access_approver", "Another hospital"],
    ] as [Role, string | null][]) {
      await stand({}, {}, role, organisation);
      expect(words()).toBe("");
      expect(screen.of("prediction")).toEqual([]);
      await screen.end();
    }
    await stand({}, {}, "data_access_approver");
    expect(button("Choose a place and predict")).not.toBeNull();
  });
});
