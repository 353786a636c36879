// @vitest-environment jsdom
import axe from "axe-core";
import { act } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Route, Switch } from "wouter";
import { navigate } from "wouter/use-hash-location";
import { catalogues } from "../src/i18n";
import type { AuditLine, AuditPage, Role } from "../src/ipc/types";
import { Audit } from "../src/screens/Audit";
import { entryOf, momentOf, queryOf, TOPICS } from "../src/screens/auditFilter";
import { button, press, type Screen, settle, show, type } from "./stage";

const STATUS = { ledger: { entries: 900, root: "aa", witnessed: [], finding: null }, memberships: [] };
const LINE: AuditLine = {
  sequence: 899,
  at: 1_000,
  actor: "Stefan",
  action: "approval_revoked",
  outcome: "refused",
  detail: "",
  bytes: null,
  parts: {
    who: "p",
    key: null,
    on_behalf: null,
    about: [],
    purpose: [],
    reason: null,
    before: null,
    after: null,
    sent: null,
    software: "hospes/0.1.0",
    device: null,
    erased: [],
  },
};
const MEMBER = { federation: "fed", name: "Heart", site_name: "Cleveland", identity: "feed" };

let screen: Screen;

/** Before a log of so many entries that pass any filter. */
async function stand(roles: Role[] = ["auditor"], answers: Record<string, unknown> = {}): Promise<void> {
  const rooms = (
    <Switch>
      <Route path="/audit" component={Audit} />
      <Route>{null}</Route>
    </Switch>
  );
  screen = await show(rooms, roles, (command, args) => {
    if (command in answers) return answers[command];
    if (command === "status") return STATUS;
    if (command === "memberships") return [MEMBER];
    if (command === "requests") {
      return [{ study: "study", title: "A study", in_force: { approval: "approval", expires: 2_000 } }];
    }
    if (command === "datasets") return [{ id: "data", name: "Cleveland" }];
    if (command === "audit") {
      const { query } = args as { query: { before?: number } };
      const next = query.before == null ? 700 : null;
      return { entries: [LINE], total: 900, next } satisfies AuditPage;
    }
    return [];
  });
  // Signing in begins at the first screen.
  await go("/audit");
}

const go = async (to: string) => {
  await act(async () => navigate(to));
  await settle();
};

const queries = () => screen.of("audit").map((args) => (args as { query: object }).query);

/** Chooses in a list that opens. */
async function choose(label: string, option: string): Promise<void> {
  const picker = [...document.querySelectorAll("button[aria-haspopup]")].find((found) =>
    document
      .getElementById(found.getAttribute("aria-labelledby")?.split(" ").at(-1) ?? "")
      ?.textContent?.includes(label),
  );
  await press(picker ?? null);
  await settle();
  await press(
    [...document.querySelectorAll('[role="option"]')].find((o) => o.textContent?.startsWith(option)) ?? null,
  );
  await settle();
}

const submit = async () => {
  await act(async () => screen.place.querySelector("form")?.requestSubmit());
  await settle();
};

const back = async () => {
  await act(async () => history.back());
  await settle(60);
};

afterEach(() => screen.end());

describe("filters of the audit log", () => {
  it("ask the engine for exactly what was said, page by page", async () => {
    await stand();
    expect(queries()).toEqual([
      { before: null, limit: 200 },
      { before: 700, limit: 200 },
    ]);
    await choose("What", "Approval revoked");
    await choose("Who", "Stefan");
    await choose("Outcome", "refused");
    await choose("Study", "A study");
    await choose("Approval", "A study, until");
    await choose("Dataset", "Cleveland");
    await type("since", "2026-03-01");
    await type("until", "2026-03-31");
    const before = queries().length;
    await submit();
    const asked = {
      actions: ["approval_revoked"],
      actor: "p",
      outcome: "refused",
      study: "study",
      approval: "approval",
      dataset: "data",
      from: new Date(2026, 2, 1).getTime(),
      until: new Date(2026, 3, 1).getTime(),
      limit: 200,
    };
    // The list shows its end, and so asks for what the engine says comes next, under the same filter.
    expect(queries().slice(before)).toEqual([
      { ...asked, before: null },
      { ...asked, before: 700 },
    ]);
  });

  it("survive going back and forth, and are cleared by one button", async () => {
    await stand();
    await type("entry", "120");
    await submit();
    expect(queries().at(-1)).toEqual({ before: 121, limit: 200 });
    await type("since", "2026-03-01 08:30");
    await submit();
    const since = new Date(2026, 2, 1, 8, 30).getTime();
    expect(queries().at(-1)).toEqual({ from: since, before: 121, limit: 200 });
    const value = (name: string) => screen.place.querySelector<HTMLInputElement>(`[name="${name}"]`)?.value;
    await back();
    expect([value("entry"), value("since")]).toEqual(["120", ""]);
    await press(button("Clear filters"));
    await settle();
    expect([value("entry"), value("since")]).toEqual(["", ""]);
    await back();
    expect([value("entry"), value("since")]).toEqual(["120", ""]);
    // Another screen, and back.
    await go("/jobs");
    expect(value("entry")).toBeUndefined();
    await back();
    expect(value("entry")).toBe("120");
  });

  it("let the log be looked at again where it has grown, filtered or not", async () => {
    await stand(["auditor"], { status: { ...STATUS, ledger: { ...STATUS.ledger, entries: 903 } } });
    expect(button("Show 3 newer")).not.toBeNull();
    await choose("Outcome", "refused");
    await submit();
    expect(button("Show 3 newer")).toBeNull();
    const before = queries().length;
    await press(button("Look again: 3 newer in all"));
    await settle();
    expect(queries()[before]).toEqual({ outcome: "refused", before: null, limit: 200 });
  });

  it("ask nothing for a day that is none", async () => {
    await stand();
    await type("since", "2026-06-31");
    const before = queries().length;
    await submit();
    expect(queries()).toHaveLength(before);
    expect(screen.place.textContent).toContain("Write it as 2027-12-31");
  });

  it("know every action that has words, and no other", () => {
    const actions: string[] = Object.values(TOPICS).flat();
    const { action = {} } = (catalogues().en?.words ?? {}) as { action?: Record<string, string> };
    expect([...actions].sort()).toEqual(Object.keys(action).sort());
    expect(queryOf({ what: "topic.egress" })).toEqual({ actions: [...TOPICS.egress] });
  });

  it("take a day alone as all of it, and a moment as it is", () => {
    expect(momentOf("2026-12-31", true)).toBe(new Date(2027, 0, 1).getTime());
    expect(momentOf("2026-12-31 23:59", true)).toBe(new Date(2026, 11, 31, 23, 59).getTime());
    for (const text of ["", "yesterday", "2026-13-01", "2026-02-30", "2026-01-01 24:00"]) {
      expect(momentOf(text, false), text).toBeNull();
    }
    expect([entryOf("12"), entryOf("-1"), entryOf("1e3"), entryOf("")]).toEqual([12, null, null, null]);
  });
});

describe("an entry", () => {
  const SIGNED: AuditLine = {
    ...LINE,
    action: "approval_signed",
    outcome: "success",
    detail: "approval id-of-approval, dataset id-of-data",
    parts: {
      ...LINE.parts,
      key: "k".repeat(64),
      about: [
        { kind: "dataset", id: "id-of-data", name: "Cleveland", digest: null },
        { kind: "snapshot", id: "d".repeat(64), name: null, digest: "d".repeat(64) },
        { kind: "site", id: "id-of-a-site", name: null, digest: null },
      ],
      purpose: [{ kind: "approval", id: "id-of-approval", name: "A study", digest: null }],
      reason: "for: A study",
      before: "b".repeat(64),
    },
  };

  /** What the open entry says: each term with what is said of it. */
  const said = () =>
    Object.fromEntries(
      [...document.querySelectorAll("[role=dialog] dl > div")].map((row) => [
        row.querySelector("dt")?.textContent,
        row.querySelector("dd")?.textContent,
      ]),
    );
  const open = () => document.querySelector<HTMLElement>('[aria-label="First signature: open entry 899"]');
  const stroke = (type: string, key: string) => {
    const event = new KeyboardEvent(type, { key, bubbles: true, cancelable: true });
    return act(async () => void document.activeElement?.dispatchEvent(event));
  };

  beforeEach(async () => {
    // jsdom lays nothing out; a list shows no row in no space.
    vi.spyOn(Element.prototype, "clientHeight", "get").mockReturnValue(500);
    vi.spyOn(HTMLElement.prototype, "offsetHeight", "get").mockReturnValue(44);
    await stand(["auditor"], { audit: { entries: [SIGNED], total: 1, next: null } satisfies AuditPage });
    await settle();
  });
  afterEach(() => vi.restoreAllMocks());

  it("is listed by names where they are known, and by ids where they are not", () => {
    const row = open()?.closest("[role=row]")?.textContent;
    expect(row).toContain("Dataset: Cleveland");
    expect(row).not.toContain("id-of-data");
    expect(row).toContain("Site id-of-a-site");
    expect(row).toContain("for: A study");
  });

  it("opens by a press to all that it says, as a list of terms", async () => {
    await press(open());
    await settle();
    expect(document.querySelector("[role=dialog]")?.textContent).toContain("Entry 899");
    const terms = said();
    expect(terms.Who).toContain("Stefan");
    expect(terms["Signed with the key"]).toContain("k".repeat(64));
    expect(terms.Approval).toContain("A study");
    expect(terms.Approval).toContain("id-of-approval");
    expect(terms.Snapshot).toContain("d".repeat(64));
    expect(terms["Settings before"]).toContain("b".repeat(64));
    expect(terms["Settings after"]).toBe("None");
    expect(terms.Program).toBe("hospes/0.1.0");
    expect(terms).not.toHaveProperty("To whom");
    const found = await axe.run(document.querySelector("[role=dialog]") ?? document, {
      rules: { region: { enabled: false }, "color-contrast": { enabled: false } },
    });
    expect(found.violations.map(({ id }) => id)).toEqual([]);
  });

  it("opens and closes by keyboard, and the focus comes back", async () => {
    await act(async () => open()?.focus());
    await stroke("keydown", "Enter");
    await stroke("keyup", "Enter");
    await settle();
    expect(said().Site).toBe("id-of-a-site");
    await stroke("keydown", "Escape");
    await settle(60);
    expect(document.querySelector("[role=dialog]")).toBeNull();
    expect(document.activeElement).toBe(open());
  });

  it("leads to all entries of its approval", async () => {
    await press(open());
    await settle();
    await press(document.querySelector('[aria-label="Only entries about this: A study"]'));
    await settle();
    expect(document.querySelector("[role=dialog]")).toBeNull();
    expect(queries().at(-1)).toEqual({ approval: "id-of-approval", before: null, limit: 200 });
  });
});

describe("the chain", () => {
  const INTACT = "The log is intact: every entry is where it was, none is missing.";
  const finding = { at: 1_000, entry: 1_234, words: "entry 1234 is the first that is wrong", alarm: 5 };
  const altered = (more: object) => ({
    ...STATUS,
    ledger: { ...STATUS.ledger, finding: { ...finding, ...more } },
  });
  const danger = () => [...screen.place.querySelectorAll('[role="alert"]')].map((n) => n.textContent);

  it("says that the log is intact when a verification found it so", async () => {
    await stand(["auditor"], {
      status: STATUS,
      verify_audit: [INTACT, "2 independent witnesses cosigned it."],
    });
    expect(danger()).toEqual([]);
    await press(button("Verify the whole log"));
    await settle();
    expect(screen.place.textContent).toContain(INTACT);
    expect(screen.place.textContent).toContain("900 entries, bound by");
  });

  it("names the first bad entry and what to do before anybody verified", async () => {
    await stand(["auditor"], { status: altered({}) });
    expect(danger()).toHaveLength(1);
    for (const words of [
      "entry 1,234 is the first that is wrong",
      "Leave this machine as it is",
      "leaves this site until an auditor, the privacy officer or an administrator acknowledges",
    ]) {
      expect(danger()[0]).toContain(words);
    }
    expect(screen.place.textContent).not.toContain("entries, bound by");
  });

  it("never says intact while an alarm of the log stands", async () => {
    await stand(["auditor"], { status: altered({}), verify_audit: [INTACT] });
    await press(button("Verify the whole log"));
    await settle();
    expect(screen.of("verify_audit")).toHaveLength(1);
    expect(screen.place.textContent).not.toContain("The log is intact");
  });

  it("keeps what was found after the alarm was acknowledged, and where no entry can be named", async () => {
    await stand(["auditor"], {
      status: altered({ entry: null, alarm: null, words: "its tail was cut off" }),
    });
    expect(danger()[0]).toContain("the log is not intact");
    expect(danger()[0]).toContain("its tail was cut off");
    expect(danger()[0]).not.toContain("acknowledges the alarm");
  });
});

describe("the export", () => {
  it("writes to the chosen place, and says how it is checked", async () => {
    await stand(["auditor"], {
      choose_place: { file: "file-1", name: "log of May.jsonl", bytes: null },
      export_audit: { format: "jsonl", entries: 901, bytes: 1, digest: "aa", finding: null },
    });
    await press(button("Choose a place and export"));
    await settle();
    expect(screen.of("choose_place")).toMatchObject([{ purpose: "audit" }]);
    expect(screen.of("export_audit")).toEqual([{ federation: "fed", kind: "jsonl", path: "file-1" }]);
    expect(screen.place.textContent).toContain("901 entries were written to log of May.jsonl");
    expect(screen.place.textContent).toContain('hospesctl audit verify "log of May.jsonl" --origin feed');
  });

  it("writes nothing when the dialog is closed, and is not offered to a data steward", async () => {
    await stand(["auditor"], { choose_place: null });
    await press(button("Choose a place and export"));
    await settle();
    expect(screen.of("export_audit")).toEqual([]);
    await screen.end();
    await stand(["data_steward"]);
    expect(button("Choose a place and export")).toBeNull();
  });
});
