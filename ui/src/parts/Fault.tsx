import type { ReactNode } from "react";

/** What went wrong, announced to screen readers at once. */
export function Fault({ children }: { children: ReactNode }) {
  return (
    <p role="alert" className="fault">
      {children}
    </p>
  );
}
