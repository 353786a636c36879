// @vitest-environment jsdom
import axe from "axe-core";
import { afterEach, describe, expect, it } from "vitest";
import type { CoefficientView, ModelCopy as CopyView, FitView, JobView, ModelCard } from "../src/ipc/types";
import { forest } from "../src/screens/ForestFigure";
import { ModelCopy } from "../src/screens/ModelCopy";
import { button, press, type Screen, settle, show } from "./stage";

let screen: Screen;

const coefficient = (name: string, estimate: number, error: number): CoefficientView => {
  const [low, high] = [estimate - 1.96 * error, estimate + 1.96 * error];
  const ratio = { of: "hazard", value: Math.exp(estimate), low: Math.exp(low), high: Math.exp(high) };
  return { name, estimate, error, statistic: estimate / error, p: 0.0004, low, high, ratio };
};

const FIT: FitView = {
  task: "hazards",
  family: "cox",
  sites: 4,
  rows: 432,
  events: 114,
  coefficients: [
    coefficient("age", -0.057, 0.022),
    coefficient("prio", 0.09, 0.028),
    coefficient("fin", -0.3, 0.19),
  ],
  statistic: "z",
  confidence: 0.95,
  log_likelihood: -505.304,
  null_log_likelihood: -520.1,
  aic: 1022.6,
  deviance: null,
  null_deviance: null,
  c_index: 0.65,
  iterations: 5,
  converged: true,
};

const CARD: ModelCard = {
  model: null,
  title: "Time to the first arrest",
  purpose: "Estimate hazards.",
  requester: "Rita, Survival Federation",
  recipients: [],
  retention: null,
  columns: ["age", "prio", "fin"],
  parties: [{ name: "Baltimore", organisation: "Clinic", rounds: 6 }],
  privacy: "Updates travelled as they are.",
  strategy: "",
  kept_at_sites: [],
  task: "hazards",
  rounds: 6,
  at: 1_790_000_000_000,
  figures: [],
  fits: [FIT],
  note: null,
};

const RUN = {
  job: "job-1",
  title: "Time to the first arrest",
  model: null,
  released: 1,
  held: false,
  tasks: [{ name: "hazards", component: "cox", inputs: [], state: "done", rounds: 6 }],
} as unknown as JobView;

const NONE: CopyView = { state: "none", card: null, moved: null, reason: null };

async function stand(
  copy: Partial<CopyView>,
  of: Partial<JobView> = {},
  answers: Record<string, unknown> = {},
) {
  screen = await show(<ModelCopy job={{ ...RUN, ...of }} />, ["data_steward"], (command) => {
    if (command === "model_copy") return { ...NONE, ...copy };
    if (command === "prediction") return { allowed: false, against: null, datasets: [], under_way: null };
    return answers[command] ?? null;
  });
}

async function violations(): Promise<string[]> {
  const found = await axe.run(screen.place, { rules: { "color-contrast": { enabled: false } } });
  return found.violations.map((violation) => violation.id);
}

const cells = (row: Element) => [...row.querySelectorAll("th, td")].map((cell) => cell.textContent);

afterEach(() => screen.end());

describe("the table of a regression", () => {
  it("is hidden while the results are held, and nothing is asked for", async () => {
    await stand({}, { released: null, held: true });
    expect(screen.place.textContent).toContain("Release the results first; then the table can be fetched");
    expect(screen.place.querySelector("table")).toBeNull();
    expect(screen.of("model_copy")).toEqual([]);
  });

  it("is fetched when somebody asks, although the run has no model", async () => {
    await stand({});
    expect(screen.place.textContent).toContain("The table is not at this site yet.");
    await press(button("Fetch the table"));
    await settle();
    expect(screen.of("fetch_model")).toEqual([{ job: "job-1" }]);
  });

  it("has coefficients with errors, intervals, p values and hazard ratios, under a caption", async () => {
    await stand({ state: "here", card: CARD });
    const table = screen.place.querySelector('[aria-label="Coefficients of hazards"] table');
    expect(table?.querySelector("caption")?.textContent).toBe(
      "432 rows of 4 sites; 95% intervals; p of the effect being 0.",
    );
    const [head, age] = [...(table?.querySelectorAll("tr") ?? [])].map(cells);
    expect(head).toEqual([
      "Feature",
      "Estimate",
      "Standard error",
      "95% interval",
      "z",
      "p",
      "Hazard ratio",
      "95% interval of: Hazard ratio",
    ]);
    expect(age).toEqual([
      "age",
      "-0.057",
      "0.022",
      "-0.1001 – -0.01388",
      "-2.59",
      "< 0.001",
      "0.9446",
      "0.9047 – 0.9862",
    ]);
    for (const figure of ["Events114", "AIC1,023", "Concordance index0.650", "Convergedyes, round 5"])
      expect(screen.place.textContent).toContain(figure);
    // Cox's model has no deviance.
    expect(screen.place.textContent).not.toContain("Deviance");
    expect(button("Choose a place and export")).toBeNull();
    expect(await violations()).toEqual([]);
  });

  it("has a forest plot whose caption and numbers say what it shows", async () => {
    await stand({ state: "here", card: CARD });
    const caption = screen.place.querySelector("figcaption")?.textContent;
    expect(caption).toContain("Hazard ratio with 95% intervals; 1 is no effect.");
    expect(caption).toContain("Furthest from it: fin, 0.7408");
    expect(caption).toContain("Intervals without 1: age and prio.");
    await press(button("Show data"));
    const rows = [...(screen.place.querySelector("figure")?.querySelectorAll("tbody tr") ?? [])];
    expect(rows.map((row) => cells(row)[0])).toEqual(["age", "prio", "fin"]);
    expect(await violations()).toEqual([]);
  });

  it("is written as CSV to the place that a person chose", async () => {
    const answers = {
      choose_place: { file: "file-1", name: "hazards.csv", bytes: null },
      export_table: { bytes: 812, digest: "feedbeef" },
    };
    await stand({ state: "here", card: CARD }, {}, answers);
    const exporting = [...document.querySelectorAll("button")].find(
      (b) => b.textContent === "Choose a place and export as CSV",
    );
    await press(exporting ?? null);
    await settle();
    expect(screen.of("choose_place")).toEqual([
      { purpose: "table", suggested: "Time to the first arrest-hazards.csv" },
    ]);
    expect(screen.of("export_table")).toEqual([{ job: "job-1", task: "hazards", path: "file-1" }]);
    expect(screen.place.textContent).toContain("The table was written to hazards.csv");
  });

  it("is not there where it would tell one site the other's numbers, and that is said", async () => {
    await stand({ state: "here", card: { ...CARD, fits: [] } });
    expect(screen.place.textContent).toContain("where two sites took part");
    expect(screen.place.querySelector("figure")).toBeNull();
  });
});

describe("a forest plot", () => {
  it("draws ratios where there are some, without the intercept", () => {
    const intercept = { ...coefficient("(intercept)", -2, 0.1), ratio: null };
    const found = forest({ ...FIT, coefficients: [intercept, ...FIT.coefficients] });
    expect([found.ratio, found.none]).toEqual(["hazard", 1]);
    expect(found.drawn.map((e) => e.name)).toEqual(["age", "prio", "fin"]);
  });

  it("draws coefficients of a linear model around 0", () => {
    const linear = [coefficient("(intercept)", 3, 1), coefficient("age", 0.5, 0.1)];
    const found = forest({
      ...FIT,
      family: "gaussian",
      coefficients: linear.map((c) => ({ ...c, ratio: null })),
    });
    expect([found.ratio, found.none, found.drawn.length]).toEqual([null, 0, 1]);
    expect(found.drawn[0]).toMatchObject({ name: "age", value: 0.5 });
  });

  it("names what is too large or too small for a picture", () => {
    const huge = {
      ...coefficient("dose", 900, 1),
      ratio: { of: "hazard", value: null, low: null, high: null },
    };
    const tiny = { ...coefficient("unit", -900, 1), ratio: { of: "hazard", value: 0, low: 0, high: 0 } };
    const found = forest({ ...FIT, coefficients: [huge, tiny, ...FIT.coefficients] });
    expect(found.left).toEqual(["dose", "unit"]);
    expect(found.drawn).toHaveLength(3);
  });

  it("leaves out intervals beside which the others could not be seen", () => {
    const found = forest({ ...FIT, coefficients: [coefficient("separated", 0.1, 300), ...FIT.coefficients] });
    expect([found.left, found.drawn.length]).toEqual([["separated"], 3]);
    const far = { ...coefficient("unit", 1e250, 1e249), ratio: null };
    const near = { ...coefficient("age", 0.5, 0.1), ratio: null };
    const linear = forest({ ...FIT, family: "gaussian", coefficients: [far, near] });
    expect([linear.left, linear.drawn.map((e) => e.name)]).toEqual([["unit"], ["age"]]);
  });

  it("of hundreds of terms is as high as a page, and says so; the data have all", async () => {
    const many = Array.from({ length: 400 }, (_, n) => coefficient(`term ${n}`, 0.5, 0.1));
    await stand({ state: "here", card: { ...CARD, fits: [{ ...FIT, coefficients: many }] } });
    const caption = screen.place.querySelector("figcaption")?.textContent ?? "";
    expect(caption).toMatch(/term 11,? and 388 others\./);
    expect(caption).toContain("The picture shows the first 50 of 400; the data have all.");
    expect(caption.length).toBeLessThan(500);
    await press(button("Show data"));
    expect(screen.place.querySelectorAll("figure tbody tr")).toHaveLength(400);
  });

  it("of which nothing can be drawn is none, and that is said", async () => {
    const huge = coefficient("dose", 900, 1);
    const ratio = { of: "hazard", value: null, low: null, high: null };
    await stand({ state: "here", card: { ...CARD, fits: [{ ...FIT, coefficients: [{ ...huge, ratio }] }] } });
    expect(screen.place.querySelector("figure")).toBeNull();
    expect(screen.place.textContent).toContain("Too large or too small to draw: dose.");
  });
});
