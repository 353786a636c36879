// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, useEffect } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { speak } from "../src/i18n";
import { reachBy } from "../src/ipc/engine";
import type { InForce, Review, Role } from "../src/ipc/types";
import { Decision } from "../src/screens/Decision";
import { Review as ReviewScreen } from "../src/screens/Review";
import { SessionProvider, useSession } from "../src/shell/session";
import { Screen } from "./screen";

declare global {
  var IS_REACT_ACT_ENVIRONMENT: boolean;
}

const REVIEW: Review = {
  study: "study",
  federation: "federation",
  study_digest: "aa",
  plan_digest: "bb",
  banners: [],
  title: "A study",
  summary: "",
  state: "under_review",
  in_force: null,
  project: [],
  people: { facts: [], peers: [] },
  settings: [],
  data: { facts: [], columns_read: [], columns_missing: [], candidates: [], series: null },
  outputs: { items: [], runs: 1, bytes_per_run: 0, bytes_in_all: 0, sentences: [] },
  privacy: null,
  computation: [],
  findings: [],
  marks: [],
  changes: null,
  opinion: null,
  signatures: [],
  approval_digest: null,
  read: { digest: "r1", study: "aa", data: "dd", sites: "ss", policy: "pp", opinion: "oo" },
  approvable: true,
};

const IN_FORCE: InForce = {
  approval: "approval",
  state: "active",
  held_by: null,
  expires: 2_000,
  runs: [0, 1],
  reason: null,
};

let root: Root;
let place: HTMLElement;
let client: QueryClient;
let asked: { command: string; args: unknown }[];

/** How the policy asks for the second signature. */
let fourEyes: string;
/** Of whoever stands before it. */
let organisation: string | null;

function Signed({ review }: { review: Review }) {
  const { name, signedIn } = useSession();
  useEffect(() => {
    if (name === null) signedIn({ id: "p", name: "Stefan", organisation });
  }, [name, signedIn]);
  return <Decision review={review} dataset="dataset" />;
}

/** Shows the decision on a document, in the place of the one before. */
const draw = (review: Review) =>
  act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <SessionProvider>
          <Signed review={review} />
        </SessionProvider>
      </QueryClientProvider>,
    ),
  );

/** Somebody with these roles, before a decision; of this organisation where no other is named. */
async function stand(roles: Role[], review: Review, of: string | null = null): Promise<void> {
  asked = [];
  organisation = of;
  const person = { id: "p", name: "Stefan", roles, organisation, state: "active", key: "k" };
  reachBy({
    call: async (command, args) => {
      asked.push({ command, args });
      if (command === "policy") return `[approval]\nfour_eyes = "${fourEyes}"\n`;
      return command === "people" ? [person] : null;
    },
    subscribe: () => {},
  });
  root = createRoot(place);
  client = new QueryClient();
  await draw(review);
  // The roles come with an answer of their own.
  await act(async () => void (await new Promise((done) => setTimeout(done, 20))));
}

const button = (name: string) =>
  [...place.querySelectorAll("button")].find((found) => found.textContent === name) ?? null;

async function type(name: string, text: string): Promise<void> {
  const field = place.querySelector<HTMLInputElement>(`[name="${name}"]`);
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value")?.set;
  await act(async () => {
    set?.call(field, text);
    field?.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

const press = (element: HTMLElement | null) => act(async () => element?.click());

const submit = () => act(async () => place.querySelector("form")?.requestSubmit());

/** Answers the five questions. */
async function answerAll(): Promise<void> {
  for (const answer of place.querySelectorAll<HTMLInputElement>('input[value="yes"]')) await press(answer);
}

beforeEach(() => {
  fourEyes = "external";
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
  speak("en");
  place = document.body.appendChild(document.createElement("div"));
});

afterEach(async () => {
  await act(async () => root.unmount());
  place.remove();
});

describe("the first signature", () => {
  it("waits until every question is answered, and then says what was answered, for one run", async () => {
    await stand(["data_steward"], REVIEW);
    await type("signing", "a long passphrase");
    const sign = () => button("Sign as data steward");
    const yes = () => [...place.querySelectorAll<HTMLInputElement>('input[type="radio"][value="yes"]')];
    expect(yes()).toHaveLength(5);
    for (const answer of yes()) {
      expect(sign()?.disabled).toBe(true);
      await press(answer);
    }
    expect(sign()?.disabled).toBe(false);
    await act(async () => place.querySelector("form")?.requestSubmit());
    const approve = asked.find(({ command }) => command === "approve")?.args;
    expect(approve).toMatchObject({
      approving: { study: "study", dataset: "dataset", max_runs: 1, ranges: {}, release: "reviewed" },
      passphrase: "a long passphrase",
    });
    const { checklist } = (approve as { approving: { checklist: object } }).approving;
    expect(Object.values(checklist)).toEqual(["yes", "yes", "yes", "yes", "yes"]);
  });

  it("is for what was read, and is filled in again where that changed meanwhile", async () => {
    await stand(["data_steward"], REVIEW);
    await answerAll();
    const told = () =>
      place.textContent?.includes("What you read here has changed since you opened it") ?? false;
    expect([told(), button("Sign as data steward")?.disabled]).toEqual([false, false]);
    const read = { ...REVIEW.read, digest: "r2", policy: "p2" };
    await draw({ ...REVIEW, read });
    expect([told(), button("Sign as data steward")?.disabled]).toEqual([true, true]);
    await answerAll();
    await type("signing", "a long passphrase");
    await submit();
    const approvals = asked.filter(({ command }) => command === "approve");
    expect(approvals.map(({ args }) => args)).toMatchObject([{ approving: { read } }]);
  });

  it("is for as many runs as were typed, or is not given", async () => {
    await stand(["data_steward"], REVIEW);
    await answerAll();
    await type("signing", "a long passphrase");
    const approvals = () => asked.filter(({ command }) => command === "approve");
    for (const wrong of ["0", "1001", "2.5", "-1"]) {
      await type("runs", wrong);
      await submit();
      expect(approvals(), wrong).toEqual([]);
      expect(place.textContent, wrong).toContain("Write a whole number from 1 to 1,000.");
    }
    await type("runs", "1000");
    await submit();
    expect(approvals().map(({ args }) => args)).toMatchObject([{ approving: { max_runs: 1_000 } }]);
  });

  it("is for the snapshot alone, unless later versions are chosen within bounds that this one lies in", async () => {
    const series = { patients: 303, bounds: { fewest: 272, most: 454 } };
    const review = { ...REVIEW, data: { ...REVIEW.data, series } };
    await stand(["data_steward"], review);
    await answerAll();
    await type("signing", "a long passphrase");
    const approvals = () =>
      asked
        .filter(({ command }) => command === "approve")
        .map(({ args }) => (args as { approving: { series: unknown } }).approving.series);
    const field = (name: string) => place.querySelector<HTMLInputElement>(`[name="${name}"]`);
    expect([field("fewest"), field("most")]).toEqual([null, null]);
    await submit();
    expect(approvals()).toEqual([null]);
    await press(place.querySelector<HTMLInputElement>('input[value="series"]'));
    expect([field("fewest")?.value, field("most")?.value]).toEqual(["272", "454"]);
    expect(place.textContent).toContain("This version has 303, those who opted out among them.");
    await type("signing", "a long passphrase");
    for (const [fewest, most, words] of [
      ["304", "454", "Write a whole number up to 303."],
      ["2.5", "454", "Write a whole number up to 303."],
      ["272", "302", "Write a whole number from 303 on."],
      ["272", "", ""],
    ] as const) {
      await type("fewest", fewest);
      await type("most", most);
      await submit();
      expect(approvals(), `${fewest} ${most}`).toHaveLength(1);
      expect(place.textContent).toContain(words);
    }
    await type("fewest", "280");
    await type("most", "400");
    await submit();
    expect(approvals()).toEqual([null, { fewest: 280, most: 400 }]);
  });

  it("offers no later versions where the policy lets an approval be for one snapshot only", async () => {
    await stand(["data_steward"], REVIEW);
    expect(place.querySelector('input[value="series"]')).toBeNull();
  });

  it("leaves the focus at the heading, and says that it is given", async () => {
    await stand(["data_steward"], REVIEW);
    await answerAll();
    await type("signing", "a long passphrase");
    await act(async () => button("Sign as data steward")?.focus());
    await submit();
    expect(place.querySelector('[role="status"]')?.textContent).toContain("Your signature is given.");
    const signature = { by: "Stefan", role: "data_steward", at: 1 } as const;
    await draw({ ...REVIEW, state: "partly_approved", approval_digest: "cc", signatures: [signature] });
    expect(button("Sign as data steward")).toBeNull();
    expect(document.activeElement?.textContent).toBe("Decision");
    const second = { by: "Anna", role: "data_access_approver", at: 2 } as const;
    const signatures = [signature, second];
    await draw({ ...REVIEW, state: "active", approval_digest: "cc", signatures, in_force: IN_FORCE });
    expect(place.querySelector('[role="status"]')?.textContent).toContain("appear under Jobs");
  });

  it("asks its questions in the person's language, of those who hear them too", async () => {
    speak("de");
    await stand(["data_steward"], REVIEW);
    const groups = [...place.querySelectorAll('[role="radiogroup"]')];
    const labels = groups.map(
      (group) => document.getElementById(group.getAttribute("aria-labelledby") ?? "")?.textContent,
    );
    expect(labels[0]).toBe("Ist dies eine angemessene Nutzung der Daten?");
  });

  it("is not to be had where a rule refuses", async () => {
    await stand(["data_steward"], { ...REVIEW, approvable: false });
    await answerAll();
    expect(button("Sign as data steward")?.disabled).toBe(true);
  });

  it("is not offered to who has no part in it, and not to the privacy officer", async () => {
    await stand(["privacy_officer"], REVIEW);
    expect(button("Sign as data steward")).toBeNull();
    expect(button("Refuse this study")).toBeNull();
    expect(button("Give this opinion")).not.toBeNull();
  });
});

describe("the second signature", () => {
  const partly: Review = {
    ...REVIEW,
    state: "partly_approved",
    approval_digest: "cc",
    signatures: [{ by: "Stefan", role: "data_steward", at: 1 }],
  };

  it("is on exactly the document whose digest is shown", async () => {
    await stand(["data_access_approver"], partly);
    await type("signing", "another passphrase");
    await act(async () => place.querySelector("form")?.requestSubmit());
    expect(asked.find(({ command }) => command === "countersign")?.args).toEqual({
      study: "study",
      digest: "cc",
      passphrase: "another passphrase",
    });
  });

  it("is given or refused by a person of another organisation, who suspends and revokes nothing", async () => {
    await stand(["data_access_approver"], partly, "Another clinic");
    expect(button("Sign as data-access approver")).not.toBeNull();
    expect(button("Refuse this study")).not.toBeNull();
    await draw({ ...partly, state: "active", in_force: IN_FORCE });
    expect([button("Suspend"), button("Revoke"), button("Refuse this study")]).toEqual([null, null, null]);
  });

  it("is not refused by a person of another organisation whom the policy does not ask", async () => {
    fourEyes = "two_people";
    await stand(["data_access_approver"], partly, "Another clinic");
    expect(button("Refuse this study")).toBeNull();
  });

  it("becomes a first one again where the first no longer holds", async () => {
    await stand(["data_steward"], { ...partly, approval_digest: null, signatures: [] });
    expect(button("Sign as data steward")).not.toBeNull();
    expect(button("Sign as data-access approver")).toBeNull();
  });
});

describe("rules that refuse", () => {
  it("are told in one alert, however many they are", async () => {
    const screen = new Screen();
    const finding = (rule: string) => ({ rule, refuses: true, words: `${rule} is not kept` });
    const review = { ...REVIEW, findings: [finding("egress.loss"), finding("egress.n")], approvable: false };
    await screen.show(<ReviewScreen study="study" />, { review, datasets: [], people: [] });
    const alerts = [...screen.place.querySelectorAll("[role=alert]")].map((alert) => alert.textContent);
    expect(alerts).toHaveLength(1);
    expect(alerts[0]).toContain("egress.loss is not kept");
    expect(alerts[0]).toContain("egress.n is not kept");
    await screen.away();
    root = createRoot(place);
  });
});

describe("an approval in force", () => {
  const DRAFT: Review = {
    ...REVIEW,
    state: "partly_approved",
    approval_digest: "cc",
    signatures: [{ by: "Ada", role: "data_steward", at: 1 }],
  };
  const VERDICTS = ["Suspend", "Resume", "Revoke", "Refuse this study"];
  const offered = () => VERDICTS.filter((name) => button(name) !== null);

  it("can be suspended by the privacy officer, who revokes nothing", async () => {
    await stand(["privacy_officer"], { ...REVIEW, state: "active", in_force: IN_FORCE });
    expect(offered()).toEqual(["Suspend"]);
  });

  it("is suspended and revoked beside a draft of a further one, which is not refused", async () => {
    await stand(["data_steward"], { ...DRAFT, in_force: IN_FORCE });
    expect(offered()).toEqual(["Suspend", "Revoke"]);
    await draw(DRAFT);
    expect(offered()).toEqual(["Refuse this study"]);
  });

  it("is resumed beside a draft by the officer who suspended it, and not by the steward", async () => {
    const held: Review = {
      ...DRAFT,
      in_force: { ...IN_FORCE, state: "suspended", held_by: "privacy_officer" },
    };
    await stand(["privacy_officer"], held);
    expect(offered()).toEqual(["Resume"]);
    await press(button("Resume"));
    const resume = [...document.querySelectorAll('[role="alertdialog"] button, [role="dialog"] button')];
    await press((resume.find((b) => b.textContent === "Resume") as HTMLElement | undefined) ?? null);
    const decide = asked.filter(({ command }) => command === "decide");
    expect(decide.map(({ args }) => args)).toEqual([{ study: "study", verdict: "resume" }]);
    await act(async () => root.unmount());
    await stand(["data_steward"], held);
    expect(offered()).toEqual(["Revoke"]);
  });

  it("is taken over by the privacy officer where somebody else suspended it", async () => {
    for (const held_by of [null, "data_steward"] as const) {
      const held: Review = {
        ...REVIEW,
        state: "suspended",
        in_force: { ...IN_FORCE, state: "suspended", held_by },
      };
      await stand(["data_steward"], held);
      expect(button("Take over the suspension")).toBeNull();
      await act(async () => root.unmount());
      await stand(["privacy_officer"], held);
      expect(button("Take over the suspension")).not.toBeNull();
      await draw({ ...held, in_force: { ...IN_FORCE, state: "suspended", held_by: "privacy_officer" } });
      expect(button("Take over the suspension")).toBeNull();
      if (held_by === null) await act(async () => root.unmount());
    }
  });

  it("is given anew after another opinion when it is over, and beside the one in force", async () => {
    for (const state of ["revoked", "expired", "refused"] as const) {
      await stand(["privacy_officer"], { ...REVIEW, state });
      expect(button("Give this opinion"), state).not.toBeNull();
      await act(async () => root.unmount());
    }
    await stand(["privacy_officer"], { ...REVIEW, state: "active", in_force: IN_FORCE });
    expect(button("Give this opinion")).toBeNull();
    await act(async () => root.unmount());
    await stand(["data_steward"], REVIEW);
    for (const state of ["revoked", "expired", "refused", "active", "suspended"] as const) {
      await draw({ ...REVIEW, state });
      expect(button("Sign as data steward"), state).not.toBeNull();
    }
    await draw({ ...REVIEW, state: "withdrawn" });
    expect(button("Sign as data steward")).toBeNull();
  });

  it("is resumed by any of them where nobody is named who suspended it", async () => {
    await stand(["data_steward"], {
      ...REVIEW,
      state: "suspended",
      in_force: { ...IN_FORCE, state: "suspended" },
    });
    expect(offered()).toEqual(["Resume", "Revoke"]);
  });
});
