// @vitest-environment jsdom
import type { ReactNode } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { JobView, RequestView } from "../src/ipc/types";
import { Approvals } from "../src/screens/Approvals";
import { Audit } from "../src/screens/Audit";
import { Home } from "../src/screens/Home";
import { Job } from "../src/screens/Job";
import { Jobs } from "../src/screens/Jobs";
import { Model } from "../src/screens/Model";
import { Models } from "../src/screens/Models";
import { PeopleSettings } from "../src/screens/PeopleSettings";
import { Banners } from "../src/shell/Banners";
import { Header } from "../src/shell/Header";
import { Own } from "../src/shell/Own";
import { Rail } from "../src/shell/Rail";
import { button, STATUS as OPERATING, type Screen, settle, show } from "./stage";

const JOB: JobView = {
  job: "job",
  study: "study",
  title: "A run",
  federation: "federation",
  state: "success",
  reason: null,
  paused: null,
  since: 1_000,
  rounds: [],
  rounds_in_all: 0,
  tasks: [],
  protection: [],
  others: [],
  comparisons: [],
  model: null,
  released: null,
  held: true,
};

const request = (state: RequestView["state"]): RequestView => ({
  study: state,
  federation: "federation",
  federation_name: "Heart",
  title: `A study that is ${state}`,
  requester: "Ada",
  received: 1_000,
  state,
  expires: null,
  runs: null,
  reason: null,
  in_force:
    state === "active" || state === "suspended"
      ? { approval: "approval", state, held_by: null, expires: 2_000, runs: [0, 1], reason: null }
      : null,
});

const STATUS = {
  ...OPERATING,
  phase: "set_up",
  waiting: 1,
  alarms: [{ id: 1, at: 1_000, federation: null, words: "a fork was seen" }],
};

const ANSWERS: Record<string, unknown> = {
  status: STATUS,
  job: JOB,
  jobs: [JOB],
  requests: [request("partly_approved"), request("active"), request("suspended")],
  proposals: [{ id: "aa", at: 1_000, by: "Ada", words: "a change of the policy", needs_words: false }],
  memberships: [{ federation: "f", name: "Restored", epoch_offered: 2, left: null }],
  audit: { entries: [], total: 0, next: null },
};

let screen: Screen;

/** Shows it to a data-access approver of another organisation, or of this one. */
async function stand(part: ReactNode, organisation: string | null = "Another clinic"): Promise<void> {
  screen = await show(part, ["data_access_approver"], (command) => ANSWERS[command] ?? [], organisation);
  await settle();
}

const links = () => [...screen.place.querySelectorAll("a")].map((a) => a.getAttribute("href"));

afterEach(() => screen.end());

describe("a person of another organisation", () => {
  it("is offered nothing about what is in force", async () => {
    await stand(<Approvals />);
    expect(screen.place.textContent).toContain("A study that is suspended");
    for (const verdict of ["Suspend", "Resume", "Revoke"]) expect(button(verdict), verdict).toBeNull();
    await screen.end();
    await stand(<Approvals />, null);
    for (const verdict of ["Suspend", "Resume", "Revoke"]) expect(button(verdict), verdict).not.toBeNull();
  });

  it("asks for no log of a run: each denial would be an entry of the ledger", async () => {
    await stand(<Job job="job" />);
    expect(screen.place.textContent).toContain("A run");
    expect(screen.place.textContent).not.toContain("Log of this run");
    expect([screen.of("job_log"), screen.of("job")]).toEqual([[], []]);
    await screen.end();
    await stand(<Job job="job" />, null);
    expect(screen.of("job_log")).toEqual([{ job: "job" }]);
  });

  it("releases nothing", async () => {
    await stand(<Model job="job" />);
    expect(screen.place.textContent).toContain("A run");
    expect(button("Release the results")).toBeNull();
    await screen.end();
    await stand(<Model job="job" />, null);
    expect(button("Release the results")).not.toBeNull();
  });

  it("is not told that results wait for their release", async () => {
    await stand(
      <>
        <Models />
        <Model job="job" />
      </>,
    );
    expect(links()).toContain("#/models/job");
    expect(screen.place.textContent).not.toContain("Waits for release");
    await screen.end();
    await stand(<Models />, null);
    expect(screen.place.textContent).toContain("Waits for release");
  });

  it("is not led to the audit log, and asks nothing of it", async () => {
    await stand(
      <>
        <Rail />
        <Header />
        <Audit />
      </>,
    );
    expect(screen.place.textContent).toContain("Log not witnessed");
    expect(links()).toContain("#/settings");
    expect(links()).not.toContain("#/audit");
    expect(screen.place.textContent).toContain("The log is shown to people of this organisation.");
    for (const command of ["audit", "audit_retention", "alarms"]) expect(screen.of(command)).toEqual([]);
    await screen.end();
    await stand(
      <>
        <Rail />
        <Header />
      </>,
      null,
    );
    expect(links().filter((to) => to === "#/audit")).toHaveLength(2);
  });

  it("sees an alarm, and does not acknowledge it", async () => {
    await stand(<Banners />);
    expect(screen.place.textContent).toContain("a fork was seen");
    expect(button("Acknowledge")).toBeNull();
    await screen.end();
    await stand(<Banners />, null);
    expect(button("Acknowledge")).not.toBeNull();
  });

  it("finds at home the requests, and nothing else that waits for a person", async () => {
    await stand(<Home />);
    const text = () => screen.place.textContent;
    expect(text()).toContain("The second signature is missing");
    for (const other of ["Results wait", "was restored", "Setting up this site"]) {
      expect(text(), other).not.toContain(other);
    }
    expect(text()).toContain("7 entries");
    for (const own of ["#/audit", "#/egress"]) expect(links()).not.toContain(own);
    expect(screen.of("jobs")).toEqual([]);
    await screen.end();
    await stand(<Home />, null);
    for (const own of ["Results wait", "proposed a change", "was restored", "Setting up this site"]) {
      expect(text(), own).toContain(own);
    }
  });

  it("answers the changes that the engine names to them", async () => {
    await stand(<PeopleSettings />);
    expect(screen.place.textContent).toContain("Stefan");
    expect(button("Decide")).not.toBeNull();
  });

  it("is led to nothing that is the site's own, and asks nothing of it", async () => {
    const own = (
      <>
        <Rail />
        <Own>
          <Jobs />
        </Own>
      </>
    );
    await stand(own);
    for (const place of ["jobs", "models", "datasets", "egress", "privacy"]) {
      expect(links()).not.toContain(`#/${place}`);
    }
    expect(links()).toContain("#/requests");
    expect(screen.place.textContent).toContain("This is shown to people of this organisation.");
    expect(screen.of("jobs")).toEqual([]);
    await screen.end();
    await stand(own, null);
    for (const place of ["jobs", "models", "datasets", "egress", "privacy"]) {
      expect(links()).toContain(`#/${place}`);
    }
    expect(screen.of("jobs")).not.toEqual([]);
  });
});
