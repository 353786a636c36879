/** Looks of this window; kept in the window, since they are nobody else's business. */
export type Theme = "system" | "light" | "dark";
export type Density = "comfortable" | "compact";

const THEME = "hospes.theme";
const DENSITY = "hospes.density";

export function theme(): Theme {
  const kept = localStorage.getItem(THEME);
  return kept === "light" || kept === "dark" ? kept : "system";
}

export function density(): Density {
  return localStorage.getItem(DENSITY) === "compact" ? "compact" : "comfortable";
}

/** Puts the looks on the page. */
export function wear(): void {
  const root = document.documentElement;
  root.dataset.theme = theme();
  root.dataset.density = density();
}

export function changeTheme(chosen: Theme): void {
  localStorage.setItem(THEME, chosen);
  wear();
}

export function changeDensity(chosen: Density): void {
  localStorage.setItem(DENSITY, chosen);
  wear();
}

const POLICY = "hospes.policy.seen";

/** Whether somebody looked at the policy in this window; the engine does not know, and need not. */
export function sawPolicy(): boolean {
  return localStorage.getItem(POLICY) !== null;
}

export function seePolicy(): void {
  localStorage.setItem(POLICY, "yes");
}
