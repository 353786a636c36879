import { changeLanguage, type Language } from "../i18n";
import { call } from "../ipc/engine";
import type { Preferences } from "../ipc/types";

/** What this person chose for this machine; the app keeps it, since its notifications speak the same language. */
let kept: Preferences = {
  theme: "system",
  density: "comfortable",
  language: null,
  autostart: false,
  quiet: false,
};

export function preferences(): Preferences {
  return kept;
}

/** Puts the looks on the page. */
function wear(): void {
  const root = document.documentElement;
  root.dataset.theme = kept.theme;
  root.dataset.density = kept.density;
}

/** Reads what was chosen before; without an answer the defaults hold. */
export async function recall(): Promise<void> {
  const found = await call("preferences", {}).catch(() => null);
  if (found !== null) kept = found;
  wear();
}

/** Takes on what was chosen and is kept now. */
export function adopt(chosen: Preferences): void {
  kept = chosen;
  wear();
}

/** Speaks another language, from now on and at the next start. */
export function preferLanguage(language: Language): void {
  void changeLanguage(language);
  const chosen = { ...kept, language };
  // The page speaks it all the same where it cannot be kept.
  call("set_preferences", { preferences: chosen }).then(
    () => adopt(chosen),
    () => {},
  );
}

const POLICY = "hospes.policy.seen";

/** Whether somebody looked at the policy in this window; the engine does not know, and need not. */
export function sawPolicy(): boolean {
  return localStorage.getItem(POLICY) !== null;
}

export function seePolicy(): void {
  localStorage.setItem(POLICY, "yes");
}

const VERSION = "hospes.version.hidden";

/** The newer version of which this window does not tell any more. */
export function hiddenVersion(): string | null {
  return localStorage.getItem(VERSION);
}

export function hideVersion(version: string): void {
  localStorage.setItem(VERSION, version);
}
