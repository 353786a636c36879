// @vitest-environment jsdom
import { act, type ReactNode } from "react";
import { afterEach, describe, expect, it } from "vitest";
import { changeLanguage } from "../src/i18n";
import type { AuditLine, JobView, MembershipView, RequestView, Status } from "../src/ipc/types";
import { MembershipFacts } from "../src/parts/Membership";
import { Why } from "../src/parts/Reason";
import { Approvals } from "../src/screens/Approvals";
import { Gist } from "../src/screens/AuditEntry";
import { Job } from "../src/screens/Job";
import { Banners } from "../src/shell/Banners";
import { type Screen, STATUS, settle, show } from "./stage";

/** A person's words that read like one of the engine's, with a letter that nobody sees. */
const TYPED = "the round is over\u202e";
const SHOWN = "the round is over[U+202E]";

const JOB: JobView = {
  job: "job",
  study: "study",
  title: "A study",
  federation: "federation",
  state: "running",
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
  held: false,
};

const REQUEST: RequestView = {
  study: "study",
  federation: "federation",
  federation_name: "Heart",
  title: "A study",
  requester: "Ada",
  received: 0,
  state: "refused",
  expires: 1_000,
  runs: [0, 9],
  reason: TYPED,
  in_force: null,
};

let screen: Screen;

/** Shows it in German. */
async function stand(part: ReactNode, answers: Record<string, unknown> = {}): Promise<string> {
  screen = await show(part, ["data_steward"], (command) => answers[command] ?? []);
  await act(() => changeLanguage("de"));
  await settle();
  return screen.place.textContent ?? "";
}

afterEach(async () => {
  await screen.end();
  await changeLanguage("en");
});

describe("what a person wrote", () => {
  it("of a run is shown as it is", async () => {
    const job = async (more: Partial<JobView>) => {
      const text = await stand(<Job job="job" />, { job: { ...JOB, ...more }, device: { used: "GPU" } });
      return text;
    };
    expect(await job({ paused: TYPED })).toContain(SHOWN);
    await screen.end();
    expect(await job({ state: "cancelled", reason: TYPED })).toContain(SHOWN);
    await screen.end();
    expect(await job({ state: "timeout", reason: "the round is over" })).toContain("die Runde ist vorbei");
  });

  it("of an approval is shown as it is, and the engine's reason in the person's language", async () => {
    const ended = (study: string, reason: string): RequestView => ({ ...REQUEST, study, reason });
    const requests = [
      ended("one", TYPED),
      ended("two", "the request was withdrawn"),
      ended("three", "this site left the federation: the round is over"),
    ];
    const text = await stand(<Approvals />, { requests, status: STATUS });
    expect(text).toContain(SHOWN);
    expect(text).toContain("die Anfrage wurde zurückgezogen");
    expect(text).toMatch(/verlassen: the round is over/);
    expect(text).not.toContain("die Runde ist vorbei");
  });

  it("of a federation and of the stop is shown as it is", async () => {
    const membership = { site_name: "A", members: 2, left: null, paused: TYPED } as MembershipView;
    expect(await stand(<MembershipFacts of={membership} />)).toContain(SHOWN);
    await screen.end();
    const status = { ...STATUS, stopped: TYPED } as unknown as Status;
    expect(await stand(<Banners />, { status })).toContain(SHOWN);
  });

  it("stands in the log as it is, beside what the engine wrote there", async () => {
    const line = (action: string): AuditLine =>
      ({ action, parts: { purpose: [], about: [], reason: TYPED } }) as unknown as AuditLine;
    const actions = [
      "request_refused",
      "approval_revoked",
      "dataset_removed",
      "break_glass",
      "job_cancelled",
    ];
    const text = await stand(
      <>
        {actions.map((action) => (
          <Gist key={action} of={line(action)} />
        ))}
        <Why action="job_ended">the round is over</Why>
      </>,
    );
    expect(text).toBe(`${SHOWN.repeat(actions.length)}die Runde ist vorbei`);
  });
});
