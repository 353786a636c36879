// @vitest-environment jsdom
import axe from "axe-core";
import { afterEach, describe, expect, it } from "vitest";
import type { StudyBudget as Budget, PoolAccount, PoolView } from "../src/ipc/types";
import { Budgets } from "../src/screens/Budgets";
import { Privacy } from "../src/screens/Privacy";
import { StudyBudget } from "../src/screens/StudyBudget";
import { type Screen, show } from "./stage";

const ACCOUNT: PoolAccount = {
  epsilon: 8,
  delta: 1e-6,
  spent: 5.79,
  share: 0.57,
  unprotected: 0,
  lost: null,
};
const AT = Date.UTC(2026, 4, 1, 12);
const POOL: PoolView = {
  id: "pool",
  datasets: ["Cleveland", "Cleveland 2024"],
  patients: 303,
  account: ACCOUNT,
  studies: [
    {
      study: "study",
      title: "Heart disease risk",
      federation_name: "Heart Federation",
      first: AT,
      last: AT,
      bounded: 30,
      unprotected: 0,
      epsilon: 5.4,
      renyi: 5.79,
    },
  ],
  points: [{ at: AT, title: "Heart disease risk", task: "train", spent: 5.79, unprotected: 0 }],
};

let screen: Screen;

const text = () => screen.place.textContent ?? "";
const stand = async (pools: PoolView[]) => {
  screen = await show(<Privacy />, ["auditor"], (command) => (command === "privacy" ? pools : []));
};

afterEach(() => screen.end());

describe("the privacy ledger", () => {
  it("says of each budget what is spent and left, over time and by study", async () => {
    await stand([POOL]);
    expect(text()).toContain("Cleveland and Cleveland 2024");
    expect(text()).toContain("57% spent · 43% left");
    expect(text()).toContain("ε 5.79 of at most 8, at δ 0.000001");
    expect(text()).toContain("ε 5.79 was spent, of at most 8.");
    expect(text()).not.toContain("No bound holds");
    expect([...screen.place.querySelectorAll("td")].map((cell) => cell.textContent)).toContain("5.400");
    const { violations } = await axe.run(screen.place, {
      rules: { region: { enabled: false }, "color-contrast": { enabled: false } },
    });
    expect(violations.map(({ id }) => id)).toEqual([]);
  });

  it("says that no bound holds after a release without noise, and after a lost tail", async () => {
    const bare = { ...ACCOUNT, spent: 0, share: 0, unprotected: 2 };
    const points = [{ ...POOL.points[0], spent: 0, unprotected: 2 }] as PoolView["points"];
    await stand([{ ...POOL, account: bare, points }]);
    expect(text()).toContain("No bound holds");
    expect(text()).toContain("2 releases had no differential privacy");
    expect(text()).toContain("2 releases had no noise, the last ones for 'Heart disease risk'");
    await screen.end();
    await stand([{ ...POOL, datasets: [], account: { ...ACCOUNT, lost: AT }, points: [], studies: [] }]);
    expect(text()).toContain("Removed datasets");
    expect(text()).toContain("What left after the backup of");
    expect(text()).toContain("Nothing was released of these patients.");
  });

  it("shows at home the bars alone, and nothing where nobody has a budget", async () => {
    screen = await show(<Budgets />, ["auditor"], () => [POOL]);
    expect(text()).toContain("57% spent · 43% left");
    await screen.end();
    screen = await show(<Budgets />, ["auditor"], () => []);
    expect(text()).toBe("");
  });
});

describe("a study in the review", () => {
  const budget: Budget = {
    patients: 303,
    account: ACCOUNT,
    epsilon: 4.9,
    share: 0.42,
    fits: true,
    unprotected: [],
  };
  const read = async (of: Budget) => {
    screen = await show(<StudyBudget budget={of} />, ["data_steward"], () => []);
  };

  it("says what it takes, and what would be left", async () => {
    await read(budget);
    expect(text()).toContain("57% spent · 42% this study · 1% left");
    expect(text()).toContain("This study takes ε 4.90, 42% of the budget.");
    expect(screen.place.querySelector('[role="alert"]')).toBeNull();
  });

  it("says that it takes more than is left, or that nothing bounds it", async () => {
    await read({ ...budget, share: 0.6, fits: false });
    expect(screen.place.querySelector('[role="alert"]')?.textContent).toContain("its rounds will be refused");
    expect(text()).toContain("0% left");
    await screen.end();
    await read({ ...budget, epsilon: null, share: 0, unprotected: ["train", "eval"] });
    expect(text()).toContain("Without differential privacy: train and eval.");
    expect(text()).toContain("57% spent · 43% left");
  });
});
