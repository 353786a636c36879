// @vitest-environment jsdom
import axe from "axe-core";
import { afterEach, describe, expect, it } from "vitest";
import type { ModelCopy as CopyView, JobView, ModelCard, Role } from "../src/ipc/types";
import { ModelCopy } from "../src/screens/ModelCopy";
import { button, press, type Screen, settle, show } from "./stage";

let screen: Screen;

const job = {
  job: "job-1",
  title: "Heart disease risk",
  model: "0123456789abcdef",
  released: 1,
  held: false,
} as unknown as JobView;

const card: ModelCard = {
  model: "0123456789abcdef",
  title: "Heart disease risk",
  purpose: "Learn a model.",
  requester: "Rita, Heart Federation",
  recipients: [],
  retention: null,
  columns: ["age", "sex"],
  parties: [{ name: "Cleveland", organisation: "Clinic", rounds: 3 }],
  privacy: "Updates travelled as they are.",
  strategy: "fed_avg",
  kept_at_sites: [],
  task: "train",
  rounds: 3,
  at: 1_790_000_000_000,
  figures: [
    {
      task: "eval",
      here: false,
      figures: [
        { name: "auc", value: 0.8125, interval: null, bound: 0.002 },
        { name: "calibration_slope", value: 0.9, interval: { low: 0.7, high: 1.1 }, bound: null },
      ],
      subgroups: [
        {
          column: "sex",
          code: "1",
          sites: 2,
          figures: [{ name: "auc", value: 0.7, interval: null, bound: 0.01 }],
        },
      ],
    },
    {
      task: "eval",
      here: true,
      figures: [{ name: "auc", value: 0.75, interval: null, bound: null }],
      subgroups: [],
    },
  ],
  fits: [],
  note: null,
};

const none: CopyView = { state: "none", card: null, moved: null, reason: null };

async function stand(
  copy: Partial<CopyView>,
  answers: Record<string, unknown> = {},
  of: Partial<JobView> = {},
  role: Role = "data_steward",
): Promise<void> {
  screen = await show(<ModelCopy job={{ ...job, ...of }} />, [role], (command) => {
    if (command === "model_copy") return { ...none, ...copy };
    if (command === "prediction") return { allowed: false, against: null, datasets: [], under_way: null };
    return answers[command] ?? null;
  });
}

/** What axe finds; of colours it sees nothing here. */
async function violations(): Promise<string[]> {
  const found = await axe.run(screen.place, { rules: { "color-contrast": { enabled: false } } });
  return found.violations.map((violation) => violation.id);
}

afterEach(() => screen.end());

describe("the released model", () => {
  it("is fetched when somebody asks", async () => {
    await stand({});
    expect(screen.place.textContent).toContain("not at this site yet");
    await press(button("Fetch model and card"));
    await settle();
    expect(screen.of("fetch_model")).toEqual([{ job: "job-1" }]);
    expect(await violations()).toEqual([]);
  });

  it("waits for the site's own release, and asks the engine for nothing", async () => {
    await stand({}, {}, { released: null, held: true });
    expect(screen.place.textContent).toContain("Release the results first");
    expect(button("Fetch model and card")).toBeNull();
    expect(screen.of("model_copy")).toEqual([]);
  });

  it("shows how far it is, and can be stopped", async () => {
    await stand({ state: "coming", moved: [250_000, 1_000_000], card });
    expect(screen.place.textContent).toContain("250 kB of 1 MB");
    expect(screen.place.querySelector("progress")?.value).toBe(250_000);
    expect(await violations()).toEqual([]);
    await press(button("Stop fetching"));
    await settle();
    expect(screen.of("stop_fetching")).toEqual([{ job: "job-1" }]);
  });

  it("says for whom everybody waits", async () => {
    await stand({ state: "failed", reason: "the results are held until the people of Hungary release them" });
    expect(screen.place.textContent).toContain("until the people of Hungary release them");
    expect(button("Fetch again")).not.toBeNull();
    expect(await violations()).toEqual([]);
  });

  it("is written with its card to the place that a person chose", async () => {
    await stand(
      { state: "here", card },
      {
        choose_place: { file: "file-1", name: "heart v1.2.safetensors", bytes: null },
        export_model: { model: job.model, bytes: 2_000, digest: "feedbeef", card: "aa" },
      },
    );
    expect(screen.place.textContent).toContain("Research use only");
    expect(screen.place.textContent).toContain("all sites together");
    expect(screen.place.textContent).toContain("not stated");
    await press(button("Choose a place and export"));
    await settle();
    expect(screen.of("choose_place")).toEqual([
      { purpose: "model", suggested: "Heart disease risk-01234567.safetensors" },
    ]);
    expect(screen.of("export_model")).toEqual([{ job: "job-1", path: "file-1", card: "file-1" }]);
    expect(screen.place.textContent).toContain("The model was written to heart v1.2.safetensors");
    expect(screen.place.textContent).toContain("heart v1.2.card.json");
    expect(await violations()).toEqual([]);
  });

  it("shows how sure released figures are, and those of subgroups", async () => {
    await stand({ state: "here", card });
    expect(screen.place.textContent).toContain("off by 0.002 at most");
    expect(screen.place.textContent).toContain("95 % from 0.7 to 1.1");
    const table = screen.place.querySelector('[aria-label^="Released figures by subgroup: eval"]');
    expect(table?.querySelector("tbody tr")?.textContent).toBe("sex = 120.7off by 0.01 at most");
    expect(await violations()).toEqual([]);
  });

  it("is written nowhere when the dialog is closed", async () => {
    await stand({ state: "here", card }, { choose_place: null });
    await press(button("Choose a place and export"));
    await settle();
    expect(screen.of("export_model")).toEqual([]);
  });

  it("is not for who may not look into results", async () => {
    await stand({ state: "here", card }, {}, {}, "administrator");
    expect(screen.place.textContent).toBe("");
    expect(screen.of("model_copy")).toEqual([]);
  });
});
