// @vitest-environment jsdom
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, useEffect } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { speak } from "../src/i18n";
import { reachBy } from "../src/ipc/engine";
import type { Review, Role } from "../src/ipc/types";
import { Decision } from "../src/screens/Decision";
import { SessionProvider, useSession } from "../src/shell/session";

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
  project: [],
  people: { facts: [], peers: [] },
  settings: [],
  data: { facts: [], columns_read: [], columns_missing: [], candidates: [] },
  outputs: { items: [], runs: 1, bytes_per_run: 0, bytes_in_all: 0, sentences: [] },
  computation: [],
  findings: [],
  changes: null,
  opinion: null,
  signatures: [],
  approval_digest: null,
  approvable: true,
};

let root: Root;
let place: HTMLElement;
let asked: { command: string; args: unknown }[];

/** Somebody with these roles, before a decision. */
async function stand(roles: Role[], review: Review): Promise<void> {
  asked = [];
  const person = { id: "p", name: "Stefan", roles, organisation: null, state: "active", key: "k" };
  reachBy({
    call: async (command, args) => {
      asked.push({ command, args });
      return command === "people" ? [person] : null;
    },
    subscribe: () => {},
  });
  function Signed() {
    const { name, signedIn } = useSession();
    useEffect(() => {
      if (name === null) signedIn("Stefan");
    }, [name, signedIn]);
    return <Decision review={review} dataset="dataset" />;
  }
  root = createRoot(place);
  await act(async () =>
    root.render(
      <QueryClientProvider client={new QueryClient()}>
        <SessionProvider>
          <Signed />
        </SessionProvider>
      </QueryClientProvider>,
    ),
  );
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

beforeEach(() => {
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

  it("is not to be had where a rule refuses", async () => {
    await stand(["data_steward"], { ...REVIEW, approvable: false });
    for (const answer of place.querySelectorAll<HTMLInputElement>('input[value="yes"]')) await press(answer);
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

  it("becomes a first one again where the first no longer holds", async () => {
    await stand(["data_steward"], { ...partly, approval_digest: null, signatures: [] });
    expect(button("Sign as data steward")).not.toBeNull();
    expect(button("Sign as data-access approver")).toBeNull();
  });
});

describe("an approval in force", () => {
  it("can be suspended by the privacy officer, who revokes nothing", async () => {
    await stand(["privacy_officer"], { ...REVIEW, state: "active" });
    expect([button("Suspend") !== null, button("Revoke") !== null]).toEqual([true, false]);
  });
});
