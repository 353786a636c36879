// @vitest-environment jsdom
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Home } from "../src/screens/Home";
import { Banners } from "../src/shell/Banners";
import { Header } from "../src/shell/Header";
import { Rail } from "../src/shell/Rail";
import { Screen } from "./screen";
import { STATUS } from "./stage";

const membership = (name: string, left: number | null) => ({
  federation: name,
  name,
  site: `site in ${name}`,
  site_name: `Clinic in ${name}`,
  paused: left === null ? null : "this site left the federation: we merge",
  left,
  link: left === null ? { connected: { since: 1_000 } } : "idle",
});

let screen: Screen;

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("the header", () => {
  const stand = (...memberships: object[]) => {
    const ledger = { entries: 1, root: "aa", witnessed: [] };
    return screen.show(<Header />, { status: { ledger, memberships } }, "Stefan");
  };

  it("counts a federation that was left neither as a link nor as this site's name", async () => {
    await stand(membership("Old", 2_000), membership("Heart", null));
    expect(screen.text()).toContain("Clinic in Heart");
    expect(screen.text()).toContain("Connected");
    expect(screen.text()).not.toContain("Old");
  });

  it("says that the site is in no federation where it left the only one", async () => {
    await stand(membership("Old", 2_000));
    expect(screen.text()).toContain("This site");
    expect(screen.text()).toContain("In no federation");
  });
});

describe("an audit log that is not intact", () => {
  const finding = { at: 1_000, entry: 3, words: "entry 3 is the first that is wrong", alarm: 8 };
  const alarm = (id: number, words: string) => ({ id, at: 1_000, federation: null, words });
  const alarms = [alarm(8, "This site verified its audit log."), alarm(7, "the tail is gone")];
  const status = { ...STATUS, ledger: { ...STATUS.ledger, finding }, alarms };
  const people = [
    { id: "p", name: "Stefan", roles: ["auditor"], organisation: null, state: "active", key: "k" },
  ];
  const links = () => [...screen.place.querySelectorAll("a")].map((a) => a.getAttribute("href"));
  const answers = { status, people, requests: [], proposals: [], memberships: [], jobs: [], datasets: [] };

  it("is an alarm above every screen that says what to do and leads to the log", async () => {
    await screen.show(<Banners />, answers, "Stefan");
    const [first, second] = [...screen.place.querySelectorAll('[role="alert"]')];
    for (const words of [
      "is not intact",
      "export the log with proofs",
      "entry 3 is the first that is wrong",
    ]) {
      expect(first?.textContent).toContain(words);
    }
    expect(first?.querySelector("a")?.getAttribute("href")).toContain("/audit");
    expect(second?.textContent).toContain("the tail is gone");
    expect(second?.querySelector("a")).toBeNull();
    await screen.press([...screen.place.querySelectorAll("button")][0]);
    expect(screen.args("acknowledge")).toEqual({ alarm: 8 });
    expect(await screen.faults()).toEqual([]);
  });

  it("leads nobody to the log who may not see it", async () => {
    const outsider = [{ ...people[0], organisation: "Another" }];
    await screen.show(<Banners />, { ...answers, people: outsider }, "Stefan");
    expect(screen.text()).toContain("entry 3 is the first that is wrong");
    expect(links()).toEqual([]);
  });

  it("is released by those who can take the evidence out, and by no one who asks for the data", async () => {
    const steward = [{ ...people[0], roles: ["data_steward"] }];
    await screen.show(<Banners />, { ...answers, people: steward }, "Stefan");
    const [first, second] = [...screen.place.querySelectorAll('[role="alert"]')];
    expect(first?.querySelector("button")).toBeNull();
    expect(second?.querySelector("button")).not.toBeNull();
  });

  it("is said in the header and at home, also after the alarm was acknowledged", async () => {
    const known = {
      ...status,
      alarms: [],
      ledger: { ...status.ledger, finding: { ...finding, alarm: null } },
    };
    const both = (
      <>
        <Header />
        <Home />
      </>
    );
    await screen.show(both, { ...answers, status: known }, "Stefan");
    expect(screen.text()).toContain("Log not intact");
    expect(screen.text()).toContain("Leave this machine as it is and tell the auditor");
    expect(screen.text()).not.toContain("Nobody else has seen it yet");
    expect(links()).toContain("#/audit");
  });
});

describe("the rail of a narrow window", () => {
  it("closes on Escape, and the button that opened it has the focus", async () => {
    await screen.show(<Rail />, { status: { waiting: 0 } }, "Stefan");
    const menu = () => screen.button("Menu");
    await screen.press(menu());
    expect(menu().getAttribute("aria-expanded")).toBe("true");
    screen.place.querySelector("a")?.focus();
    await act(async () => {
      document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    });
    expect(menu().getAttribute("aria-expanded")).toBe("false");
    expect(document.activeElement).toBe(menu());
  });
});
