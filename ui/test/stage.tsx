// Stands one screen up before an engine that a test plays.
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, type ReactNode, useEffect } from "react";
import { createRoot, type Root } from "react-dom/client";
import { Router } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";
import { speak } from "../src/i18n";
import { reachBy } from "../src/ipc/engine";
import type { Role } from "../src/ipc/types";
import { SessionProvider, useSession } from "../src/shell/session";

declare global {
  var IS_REACT_ACT_ENVIRONMENT: boolean;
}

// jsdom lays nothing out, so there is nothing to observe.
globalThis.ResizeObserver ??= class {
  observe() {}
  unobserve() {}
  disconnect() {}
};

globalThis.CSS ??= { escape: (text: string) => text } as unknown as typeof CSS;

/** A site in operation at which nothing waits. */
export const STATUS = {
  phase: "operating",
  at: 0,
  policy: "strict",
  memberships: [],
  waiting: 0,
  alarms: [] as object[],
  ledger: { entries: 7, root: "aa", witnessed: [], finding: null },
  outbox: 0,
  working: 0,
  pause: null,
  stopped: null,
  public_data: false,
};

export interface Asked {
  command: string;
  args: unknown;
}

export interface Screen {
  place: HTMLElement;
  /** What the engine was asked so far. */
  asked: Asked[];
  /** What it was asked with this command, in order. */
  of: (command: string) => unknown[];
  end: () => Promise<void>;
}

/** Turns in which answers arrive that others were asked after; on a busy machine one long wait may be a single turn. */
const TURNS = 10;

/** Lets answers arrive. */
export const settle = (millis = 20) =>
  act(async () => {
    for (let turn = 0; turn < TURNS; turn++) {
      await new Promise((done) => setTimeout(done, millis / TURNS));
    }
  });

function Signed({ organisation, children }: { organisation: string | null; children: ReactNode }) {
  const { name, signedIn } = useSession();
  useEffect(() => {
    if (name === null) signedIn({ id: "p", name: "Stefan", organisation });
  }, [name, signedIn, organisation]);
  return children;
}

/** Shows a screen to somebody with these roles, of this organisation where no other is named. */
export async function show(
  screen: ReactNode,
  roles: Role[],
  answer: (command: string, args: never) => unknown,
  organisation: string | null = null,
): Promise<Screen> {
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
  speak("en");
  const asked: Asked[] = [];
  const person = { id: "p", name: "Stefan", roles, organisation, state: "active", key: "k" };
  reachBy({
    call: async (command, args) => {
      asked.push({ command, args });
      return command === "people" ? [person] : answer(command, args as never);
    },
    subscribe: () => {},
  });
  const place = document.body.appendChild(document.createElement("div"));
  const root: Root = createRoot(place);
  const client = new QueryClient({
    defaultOptions: { queries: { retry: false, staleTime: Number.POSITIVE_INFINITY } },
  });
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <SessionProvider>
          <Router hook={useHashLocation}>
            <Signed organisation={organisation}>{screen}</Signed>
          </Router>
        </SessionProvider>
      </QueryClientProvider>,
    ),
  );
  // The roles come with an answer of their own, and what they allow is asked after it.
  for (let i = 0; i < 3; i++) await settle();
  return {
    place,
    asked,
    of: (command) => asked.filter((a) => a.command === command).map((a) => a.args),
    end: async () => {
      await act(async () => root.unmount());
      place.remove();
    },
  };
}

/** The button with these words, wherever it stands: questions stand in front of the screen. */
export const button = (name: string) =>
  [...document.querySelectorAll("button")].find((found) => found.textContent === name) ?? null;

export const press = (element: Element | null) => act(async () => (element as HTMLElement | null)?.click());

/** Types into a field, a large one too. */
export async function type(name: string, text: string): Promise<void> {
  const field = document.querySelector<HTMLInputElement | HTMLTextAreaElement>(`[name="${name}"]`);
  const of = field instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
  const set = Object.getOwnPropertyDescriptor(of.prototype, "value")?.set;
  await act(async () => {
    set?.call(field, text);
    field?.dispatchEvent(new Event("input", { bubbles: true }));
  });
}
