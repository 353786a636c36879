// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Args } from "../src/ipc/commands";
import type { Chosen, Fault, Role, Step, SurveyView } from "../src/ipc/types";
import { Datasets } from "../src/screens/Datasets";
import { Join } from "../src/screens/Join";
import { NewDataset } from "../src/screens/NewDataset";
import { EMPTY, isCopied, kindOf, newDataset } from "../src/screens/register";
import { type Answers, Screen } from "./screen";

const column = (name: string, kind: string, masked = false) => ({
  name,
  kind,
  masked,
  findings: masked ? ["its name is that of an identifier"] : [],
});

const SURVEY: SurveyView = {
  rows: 303,
  format: "utf-8",
  sheets: [],
  sheet: null,
  missing: ["?", "-9"],
  gaps: [],
  marks: [],
  columns: [
    column("patient", "text", true),
    column("age", "number"),
    column("sex", "number"),
    column("street", "text", true),
    column("ward", "category"),
  ],
};

const FILE: Chosen = { file: "file-1f", name: "heart.csv", bytes: 18_461 };

const SOURCE = { path: "file-1f", query: null };

let screen: Screen;

const person = (roles: Role[]) => [
  { id: "p", name: "Stefan", roles, organisation: null, state: "active", key: "k" },
];

beforeEach(() => {
  screen = new Screen();
});
afterEach(() => screen.away());

describe("registering a dataset", () => {
  it("sends exactly what was chosen, under the name that stands for the file", async () => {
    await screen.show(
      <NewDataset />,
      { people: person(["data_steward"]), choose_file: FILE, survey: SURVEY, add_dataset: { id: "d" } },
      "Stefan",
    );
    await screen.press(screen.button("Choose a file"));
    expect(screen.args("choose_file")).toEqual({ purpose: "data" });
    expect(screen.args("survey")).toEqual({
      path: "file-1f",
      sheet: null,
      missing: null,
      scan: null,
      query: null,
    });
    expect(screen.text()).toContain("heart.csv");
    await screen.submit();
    // Nothing tells patients apart yet.
    expect(screen.button("Continue").disabled).toBe(true);
    await screen.choose(
      screen.place.querySelector("[data-testid=hidden-select-container] select"),
      "patient",
    );
    await screen.choose(screen.labelled("Type of sex"), "category");
    await screen.press(screen.labelled("ward is in the copy"));
    await screen.press(screen.labelled("street is in the copy"));
    expect(screen.text()).toContain("You keep street.");
    expect(await screen.faults()).toEqual([]);
    await screen.submit();
    await screen.type("dataset", " Heart ");
    await screen.press(screen.input("DUO:0000042"));
    expect(await screen.faults()).toEqual([]);
    await screen.submit();
    expect(screen.text()).toContain("Is this right?");
    expect(await screen.faults()).toEqual([]);
    expect(screen.times("add_dataset")).toBe(0);
    await screen.submit();
    expect(screen.args("add_dataset")).toEqual({
      dataset: {
        name: "Heart",
        path: "file-1f",
        query: null,
        sheet: null,
        missing: ["?", "-9"],
        scan: "default",
        subject: "patient",
        kinds: { sex: "category" },
        mask: ["ward"],
        keep: ["street"],
        public: false,
        duo: ["DUO:0000042"],
      },
    });
    expect(location.hash).toBe("#/datasets/d");
  });

  /** As far as the columns, of a file in which 999 stands where a value may be missing. */
  async function atColumns(again: (args: Args<"survey">) => unknown): Promise<void> {
    const answer = ({ missing }: Args<"survey">) => {
      const isTold = missing?.includes("999") ?? false;
      return {
        ...SURVEY,
        missing: missing ?? SURVEY.missing,
        gaps: [
          { column: "age", marker: "", cells: 4, is_missing: true },
          { column: "age", marker: "999", cells: 12, is_missing: isTold },
          { column: "street", marker: "999", cells: 7, is_missing: isTold },
        ],
      };
    };
    const survey = (args: Args<"survey">) => (args.scan !== null && again(args)) || answer(args);
    const answers = {
      people: person(["data_steward"]),
      choose_file: FILE,
      survey: (args: unknown) => survey(args as Args<"survey">),
      add_dataset: { id: "d" },
    };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.button("Choose a file"));
    await screen.submit();
    const choice = screen.place.querySelector("[data-testid=hidden-select-container] select");
    await screen.choose(choice, "patient");
  }

  it("asks what a text that looks like a missing value means, and applies it only when told", async () => {
    await atColumns(() => null);
    expect(screen.field("missing").value).toBe("?\n-9");
    expect(screen.text()).toContain("Does 999 mean a missing value?");
    // A column that stays out is not asked about.
    expect(screen.text()).toContain("It stands in age (12 cells),");
    expect(screen.text()).toContain("empty cells: 4");
    expect(screen.text()).not.toContain("999: 12");
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("It means missing: 999"));
    expect(screen.args("survey")).toEqual({
      path: "file-1f",
      sheet: null,
      missing: ["?", "-9", "999"],
      scan: "default",
      query: null,
    });
    expect(screen.text()).toContain("999: 12");
    expect(screen.text()).not.toContain("Does 999 mean a missing value?");
    await screen.submit();
    await screen.type("dataset", "Heart");
    await screen.submit();
    expect(screen.text()).toContain("empty cells, ?, -9");
    await screen.submit();
    expect(screen.args("add_dataset")).toMatchObject({ dataset: { missing: ["?", "-9", "999"] } });
  });

  it("says how far a large file is read, and stops where somebody does not want to wait", async () => {
    let stop: (fault: Fault) => void = () => {};
    const answers = {
      people: person(["data_steward"]),
      choose_file: FILE,
      survey: () =>
        new Promise((_, reject) => {
          stop = reject;
        }),
      reading: { rows: 1_204_000, all: null },
      stop_reading: () => stop({ code: "stopped", words: "the reading was stopped" }),
    };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.button("Choose a file"));
    expect(screen.text()).toContain("1,204,000 rows are read so far");
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("Stop reading"));
    expect(screen.text()).toContain("You stopped the reading");
    // It is not looked at as a workbook of which another sheet might be the table.
    expect(screen.times("sheets")).toBe(0);
  });

  it("can still be stopped by who left the wizard, with what remains in sight", async () => {
    const answers = {
      people: person(["data_steward"]),
      datasets: [],
      reading: { rows: 500_000, all: 2_000_000 },
    };
    await screen.show(<Datasets />, answers, "Stefan");
    const progress = screen.place.querySelector("progress");
    expect([progress?.value, progress?.max]).toEqual([500_000, 2_000_000]);
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("Stop reading"));
    expect(screen.times("stop_reading")).toBe(1);
  });

  it("goes on only with what was counted", async () => {
    await atColumns(() => null);
    expect(screen.button("Continue").disabled).toBe(false);
    await screen.type("missing", " ? \n\n?");
    expect(screen.button("Continue").disabled).toBe(true);
    expect(screen.text()).toContain("Count again before you go on.");
    await screen.press(screen.button("Count again"));
    expect(screen.args("survey")).toMatchObject({ missing: ["?"] });
    expect(screen.button("Continue").disabled).toBe(false);
  });

  it("looks as strictly as was chosen, and does not go on where that failed", async () => {
    let fails = true;
    const strict = { ...SURVEY, columns: SURVEY.columns.map((of) => ({ ...of, masked: of.name !== "sex" })) };
    await atColumns(() => (fails ? Promise.reject({ code: "data", words: "the file is gone" }) : strict));
    await screen.press(screen.input("hipaa_safe_harbor"));
    expect(screen.text()).toContain("the file is gone");
    expect(screen.button("Continue").disabled).toBe(true);
    fails = false;
    await screen.press(screen.button("Count again"));
    expect(screen.args("survey")).toMatchObject({ scan: "hipaa_safe_harbor" });
    await screen.submit();
    await screen.type("dataset", "Heart");
    await screen.submit();
    expect(screen.text()).toContain("HIPAA safe harbor");
    await screen.submit();
    expect(screen.args("add_dataset")).toMatchObject({
      dataset: { scan: "hipaa_safe_harbor", mask: [], keep: [] },
    });
  });

  it("asks for the sheet of a workbook, also where its first one is no table", async () => {
    const sheets = ["Read me", "Labs", "Visits"];
    const answers = {
      people: person(["data_steward"]),
      choose_file: { ...FILE, name: "heart.xlsx" },
      survey: ({ sheet }: { sheet: string | null }) =>
        sheet === "Labs"
          ? { ...SURVEY, sheets, sheet }
          : Promise.reject({ code: "input", words: "row 3: 2 fields, the header has 1" }),
      sheets,
      add_dataset: { id: "d" },
    };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.button("Choose a file"));
    expect(screen.args("sheets")).toEqual({ path: "file-1f" });
    expect(screen.text()).toContain("row 3: 2 fields");
    expect(screen.button("Continue").disabled).toBe(true);
    const choice = () => screen.place.querySelector("[data-testid=hidden-select-container] select");
    await screen.choose(choice(), "Visits");
    await screen.choose(choice(), "Labs");
    expect(screen.args("survey")).toEqual({
      path: "file-1f",
      sheet: "Labs",
      missing: null,
      scan: null,
      query: null,
    });
    expect(screen.times("sheets")).toBe(1);
    expect(await screen.faults()).toEqual([]);
    await screen.submit();
    await screen.choose(choice(), "patient");
    await screen.submit();
    await screen.type("dataset", "Heart");
    await screen.submit();
    expect(screen.text()).toContain("Sheet of the workbook");
    await screen.submit();
    expect(screen.args("add_dataset")).toMatchObject({ dataset: { path: "file-1f", sheet: "Labs" } });
  });

  it("asks for no sheet where a workbook has only one", async () => {
    const survey = { ...SURVEY, sheets: ["Labs"], sheet: "Labs" };
    const answers = { people: person(["data_steward"]), choose_file: FILE, survey };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.button("Choose a file"));
    expect(screen.button("Continue").disabled).toBe(false);
    expect(screen.times("sheets")).toBe(0);
    expect(screen.text()).not.toContain("Sheet of the workbook");
  });

  it("is not begun by a dialog that was closed, and not offered to others than data stewards", async () => {
    const answers = { people: person(["data_steward"]), choose_file: null };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.button("Choose a folder of images"));
    expect(screen.args("choose_file")).toEqual({ purpose: "images" });
    expect(screen.times("survey")).toBe(0);
    await screen.away();
    screen = new Screen();
    await screen.show(<NewDataset />, { people: person(["administrator"]) }, "Stefan");
    expect(screen.text()).toContain("Data stewards register datasets, and your roles do not include that.");
  });

  it("names nothing that nobody decided", () => {
    const draft = {
      ...EMPTY,
      name: "Heart",
      subject: "patient",
      kinds: { age: "number" },
      copied: { age: true },
    };
    expect(newDataset(draft, SURVEY.columns, SOURCE)).toMatchObject({
      kinds: {},
      mask: [],
      keep: [],
      duo: [],
    });
  });
});

describe("registering rows of a query", () => {
  const KNOWN = {
    id: "db-1",
    name: "Warehouse",
    host: "db.clinic.example",
    port: 5432,
    database: "clinic",
    user: "reader",
    unverified: false,
    timeout_s: 600,
  };
  const GOOD: Step[] = [
    { test: "tcp", outcome: "good", finding: "It answers.", request: null },
    { test: "login", outcome: "good", finding: "The connection is encrypted.", request: null },
    { test: "rights", outcome: "notice", finding: "reader may change rows.", request: null },
  ];

  it("connects a server, forgets the password, and asks for the query's rows", async () => {
    let known: unknown[] = [];
    const add = () => {
      known = [KNOWN];
      return { steps: GOOD, known: KNOWN };
    };
    const answers = {
      people: person(["data_steward"]),
      databases: () => known,
      add_database: add,
      survey: SURVEY,
      add_dataset: { id: "d" },
    };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.input("server"));
    for (const [name, text] of [
      ["database-name", "Warehouse"],
      ["host", "db.clinic.example"],
      ["database", "clinic"],
      ["user", "reader"],
      ["password", "hush"],
    ] as const) {
      await screen.type(name, text);
    }
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("Test and keep"));
    expect(screen.args("add_database")).toEqual({
      database: {
        name: "Warehouse",
        host: "db.clinic.example",
        port: 5432,
        database: "clinic",
        user: "reader",
        unverified: false,
        extra_ca: null,
        timeout_s: 600,
      },
      password: "hush",
    });
    expect(screen.text()).toContain("reader may change rows.");
    expect(screen.place.innerHTML).not.toContain("hush");
    expect(screen.place.querySelector("[name=password]")).toBe(null);
    await screen.type("query", "SELECT * FROM visits");
    await screen.press(screen.button("Read the rows"));
    const query = { database: "db-1", text: "SELECT * FROM visits" };
    expect(screen.args("survey")).toEqual({ path: "", sheet: null, missing: null, scan: null, query });
    expect(await screen.faults()).toEqual([]);
    await screen.submit();
    const choice = screen.place.querySelector("[data-testid=hidden-select-container] select");
    await screen.choose(choice, "patient");
    await screen.submit();
    await screen.type("dataset", "Visits");
    await screen.submit();
    expect(screen.text()).toContain("SELECT * FROM visits");
    await screen.submit();
    expect(screen.args("add_dataset")).toMatchObject({ dataset: { path: "", query } });
  });

  it("keeps nothing of a test that failed", async () => {
    const failed = [{ test: "tcp", outcome: "failed", finding: "No answer.", request: null }];
    const answers = {
      people: person(["data_steward"]),
      databases: [],
      add_database: { steps: failed, known: null },
    };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.input("server"));
    expect(screen.button("Test and keep").disabled).toBe(true);
    for (const name of ["database-name", "host", "database", "user", "password"])
      await screen.type(name, "x");
    await screen.press(screen.button("Test and keep"));
    expect(screen.text()).toContain("No answer.");
    expect(screen.field("password").value).toBe("");
    expect(screen.place.querySelector("[name=query]")).toBe(null);
    expect(screen.button("Continue").disabled).toBe(true);
  });

  it("asks a file of SQLite that was chosen", async () => {
    const file = { file: "file-9f", name: "ward.sqlite", bytes: 4_096 };
    const answers = { people: person(["data_steward"]), choose_file: file, survey: SURVEY };
    await screen.show(<NewDataset />, answers, "Stefan");
    await screen.press(screen.input("sqlite"));
    await screen.press(screen.button("Choose a file"));
    expect(screen.times("survey")).toBe(0);
    await screen.type("query", "SELECT * FROM visits");
    await screen.press(screen.button("Read the rows"));
    const query = { database: null, text: "SELECT * FROM visits" };
    expect(screen.args("survey")).toEqual({
      path: "file-9f",
      sheet: null,
      missing: null,
      scan: null,
      query,
    });
    expect(screen.button("Continue").disabled).toBe(false);
  });
});

describe("a column with a name that every object knows", () => {
  const COLUMNS = [
    column("constructor", "number"),
    column("__proto__", "number", true),
    column("age", "number"),
  ];

  it("is in the copy as the scan has it, and of its type, where nobody decided otherwise", () => {
    expect(COLUMNS.map((of) => [isCopied(EMPTY, of), kindOf(EMPTY, of)])).toEqual([
      [true, "number"],
      [false, "number"],
      [true, "number"],
    ]);
    const asked = newDataset({ ...EMPTY, subject: "age" }, COLUMNS, SOURCE);
    expect(asked).toMatchObject({ mask: [], keep: [] });
    expect(Object.keys(asked.kinds ?? {})).toEqual([]);
  });

  it("is what a person decided of it", () => {
    const draft = {
      ...EMPTY,
      subject: "age",
      kinds: Object.fromEntries([["constructor", "category"]]),
      copied: Object.fromEntries([
        ["constructor", false],
        ["__proto__", true],
      ]),
    };
    const asked = newDataset(draft, COLUMNS, SOURCE);
    expect(asked).toMatchObject({ mask: ["constructor"], keep: ["__proto__"] });
    expect(Object.entries(asked.kinds ?? {})).toEqual([["constructor", "category"]]);
  });
});

describe("a list of opt-outs", () => {
  it("is imported only after a question, and its report is shown", async () => {
    const answers = {
      people: person(["data_steward"]),
      datasets: [],
      choose_file: { file: "file-2f", name: "out.txt", bytes: 40 },
      import_opt_outs: { listed: 7, affected: 1 },
    };
    await screen.show(<Datasets />, answers, "Stefan");
    expect(await screen.faults()).toEqual([]);
    await screen.press(screen.button("Choose a list"));
    expect(screen.args("choose_file")).toEqual({ purpose: "opt_outs" });
    expect(screen.times("import_opt_outs")).toBe(0);
    await screen.press(screen.button("Import this list"));
    expect(screen.args("import_opt_outs")).toEqual({ path: "file-2f" });
    expect(screen.text()).toContain(
      "7 patients are on the list now. 1 of them is in a dataset of this site.",
    );
  });
});

describe("joining a federation", () => {
  it("sends the network's own certificates by the name that stands for them", async () => {
    const invitation = { url: "https://c", site: "Cleveland", expires: 1 };
    const chosen = { file: "file-3f", name: "ca.pem", bytes: 1_200 };
    const answers = { read_invitation: invitation, choose_file: chosen, enrol: { federation: "f" } };
    await screen.show(<Join />, answers);
    await screen.type("invitation", "hospes1");
    await screen.submit();
    await screen.type("words", "twelve words");
    await screen.type("organisation", "Clinic");
    await screen.press(screen.button("Choose a certificate file"));
    expect(screen.args("choose_file")).toEqual({ purpose: "certificates" });
    await screen.submit(1);
    expect(screen.args("enrol")).toMatchObject({
      enrolment: { extra_ca: "file-3f", organisation: "Clinic" },
    });
  });

  const STEPS: Step[] = [
    { test: "invitation", outcome: "good", finding: "The invitation is good.", request: null },
    { test: "tcp", outcome: "failed", finding: "No connection.", request: "Please allow port 443." },
    { test: "tls", outcome: "skipped", finding: "Not tested.", request: null },
  ];
  const INVITATION = { url: "https://c", site: "Cleveland", expires: 1 };

  /** As far as the second step, with the invitation read. */
  async function invited(answers: Answers): Promise<void> {
    await screen.show(<Join />, { read_invitation: INVITATION, ...answers });
    await screen.type("invitation", " hospes1 ");
    await screen.submit();
  }

  it("can be tested before, over the proxy that was typed, and joining needs no test", async () => {
    await invited({ diagnose_invitation: STEPS });
    await screen.type("proxy", " http://proxy:3128 ");
    const button = screen.button("Test the connection");
    // By keyboard alone: it is a stop of the tabulator, and submits nothing.
    expect([button.tabIndex, button.type]).toEqual([0, "button"]);
    await screen.press(button);
    expect(screen.args("diagnose_invitation")).toEqual({
      approach: { invitation: "hospes1", proxy: "http://proxy:3128", extra_ca: null },
    });
    expect(screen.times("enrol")).toBe(0);
    const steps = [...(screen.labelled("Connection test")?.querySelectorAll("li") ?? [])];
    expect(steps.map((step) => step.querySelector("strong")?.textContent)).toEqual([
      "Invitation: good",
      "Connection: failed",
      "Encryption: not tested",
    ]);
    expect(screen.text()).toContain("For your IT department: Please allow port 443.");
    expect(screen.labelled("Connection test")?.closest("[role=status]")).not.toBeNull();
    expect(await screen.faults()).toEqual([]);
    expect(screen.button("Join a federation").disabled).toBe(false);
    // What was found on another way says nothing about this one.
    await screen.type("proxy", "");
    expect(screen.labelled("Connection test")).toBeNull();
  });

  it("is offered a test where the coordinator was not reached, and none where the words were wrong", async () => {
    const fails = (code: string) => () => Promise.reject({ code, words: "it failed" });
    for (const [code, isOffered] of [
      ["link", true],
      ["fingerprint", false],
    ] as const) {
      await invited({ enrol: fails(code), diagnose_invitation: STEPS });
      await screen.type("words", "twelve words");
      await screen.type("organisation", "Clinic");
      await screen.submit(1);
      expect(screen.text()).toContain("it failed");
      expect(screen.text().includes("The connection test says which step fails")).toBe(isOffered);
      expect(await screen.faults()).toEqual([]);
      await screen.press(screen.button("Test the connection"));
      expect(screen.labelled("Connection test")).not.toBeNull();
      await screen.away();
      screen = new Screen();
    }
  });

  it("says why a test could not be made", async () => {
    const denied = () => Promise.reject({ code: "denied", words: "it needs the role administrator" });
    await invited({ diagnose_invitation: denied });
    await screen.press(screen.button("Test the connection"));
    expect(screen.place.querySelector("[role=alert]")?.textContent).toContain(
      "it needs the role administrator",
    );
  });
});
