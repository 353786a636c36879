import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import axe from "axe-core";
import { act, type ReactNode, useEffect } from "react";
import { createRoot, type Root } from "react-dom/client";
import { Router } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";
import { speak } from "../src/i18n";
import { reachBy } from "../src/ipc/engine";
import { becomesStale } from "../src/ipc/hooks";
import type { PersonView } from "../src/ipc/types";
import { SessionProvider, useSession } from "../src/shell/session";
import { settle } from "./stage";

export interface Asked {
  command: string;
  args: unknown;
}

/** What an engine answers, by command; a function is asked each time. */
export type Answers = Record<string, unknown | ((args: unknown) => unknown)>;

/** A part of the page in front of an engine that answers as it was told. */
export class Screen {
  readonly asked: Asked[] = [];
  readonly place = document.body.appendChild(document.createElement("div"));
  private readonly root: Root;
  private client = new QueryClient();

  constructor() {
    globalThis.IS_REACT_ACT_ENVIRONMENT = true;
    this.root = createRoot(this.place);
  }

  /** Shows it; with somebody signed in where a name is given. */
  async show(part: ReactNode, answers: Answers, name: string | null = null): Promise<void> {
    // jsdom scrolls nothing, and has no CSS.
    Element.prototype.scrollTo = () => {};
    globalThis.CSS ??= { escape: (text: string) => text } as typeof CSS;
    speak("en");
    reachBy({
      call: async (command, args) => {
        this.asked.push({ command, args });
        const answer = answers[command];
        return (typeof answer === "function" ? answer(args) : answer) ?? null;
      },
      subscribe: () => {},
    });
    // The engine says the same of somebody at every place.
    const people = Array.isArray(answers.people) ? (answers.people as PersonView[]) : [];
    const organisation = people.find(({ id }) => id === "p")?.organisation ?? null;
    function SignedIn() {
      const session = useSession();
      useEffect(() => {
        if (name !== null && session.name === null) session.signedIn({ id: "p", name, organisation });
      }, [session]);
      return name === null || session.name !== null ? part : null;
    }
    const queries = { retry: false, staleTime: Number.POSITIVE_INFINITY };
    this.client = new QueryClient({ defaultOptions: { queries } });
    await act(async () =>
      this.root.render(
        <QueryClientProvider client={this.client}>
          <SessionProvider>
            <Router hook={useHashLocation}>
              <SignedIn />
            </Router>
          </SessionProvider>
        </QueryClientProvider>,
      ),
    );
    await this.settle();
  }

  /** Waits for answers that were asked for. */
  async settle(): Promise<void> {
    await settle();
  }

  /** The engine tells that everything may have changed. */
  async changed(): Promise<void> {
    await act(async () => becomesStale(this.client, new Set([null])));
    await this.settle();
  }

  args(command: string): unknown {
    return this.asked.findLast((asked) => asked.command === command)?.args;
  }

  times(command: string): number {
    return this.asked.filter((asked) => asked.command === command).length;
  }

  text(): string {
    return this.place.textContent ?? "";
  }

  button(name: string): HTMLButtonElement {
    const named = (b: Element) => b.textContent === name || b.getAttribute("aria-label") === name;
    const found = [...document.querySelectorAll("button")].find(named);
    if (!found) throw new Error(`no button '${name}' in: ${this.text()}`);
    return found;
  }

  async press(element: HTMLElement | null | undefined): Promise<void> {
    if (!element) throw new Error("there is nothing to press");
    await act(async () => element.click());
    await this.settle();
  }

  field(name: string): HTMLInputElement {
    const found = this.place.querySelector<HTMLInputElement>(`[name="${name}"]`);
    if (!found) throw new Error(`no field '${name}' in: ${this.text()}`);
    return found;
  }

  async type(name: string, text: string): Promise<void> {
    await this.slide(this.field(name), text);
  }

  /** Gives any field a value as a person does. */
  async slide(field: HTMLElement | null, text: string): Promise<void> {
    const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value")?.set;
    await act(async () => {
      set?.call(field, text);
      field?.dispatchEvent(new Event("input", { bubbles: true }));
      field?.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }

  async choose(element: Element | null, value: string): Promise<void> {
    if (!(element instanceof HTMLSelectElement)) throw new Error(`no such choice in: ${this.text()}`);
    await act(async () => {
      element.value = value;
      element.dispatchEvent(new Event("change", { bubbles: true }));
    });
    await this.settle();
  }

  labelled(label: string): HTMLElement | null {
    return this.place.querySelector<HTMLElement>(`[aria-label="${label}"]`);
  }

  /** A choice or box by its value. */
  input(value: string): HTMLInputElement | null {
    return this.place.querySelector<HTMLInputElement>(`input[value="${value}"]`);
  }

  async submit(at = 0): Promise<void> {
    await act(async () => this.place.querySelectorAll("form")[at]?.requestSubmit());
    await this.settle();
  }

  /** What axe finds; of colours it sees nothing here. */
  async faults(): Promise<string[]> {
    const { violations } = await axe.run(this.place, {
      rules: { region: { enabled: false }, "color-contrast": { enabled: false } },
    });
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
  }

  async away(): Promise<void> {
    await act(async () => this.root.unmount());
    this.place.remove();
  }
}
