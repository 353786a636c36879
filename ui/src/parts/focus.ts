import { type RefObject, useEffect } from "react";

/** Within this time whoever gives the focus back by themselves has done so, as a dialog does, in milliseconds. */
const GIVEN_BACK_MS = 100;

/** What has the focus may go with what was done, or rest from then on: the button that stopped a run, a row that was removed. The
 * focus would be at the beginning of the window, and whoever goes by keyboard would begin anew; this element takes it instead. */
export function useFocusKept(by: RefObject<HTMLElement | null>): void {
  useEffect(() => {
    let last: EventTarget | null = document.activeElement;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const isAtNothing = () => document.activeElement === null || document.activeElement === document.body;
    const take = () => {
      timer = undefined;
      // A dialog looks after its own focus.
      if (isAtNothing() && !document.querySelector("[role=dialog]"))
        by.current?.focus({ preventScroll: true });
    };
    const look = () => {
      const isGone = last instanceof Element && (!last.isConnected || last.matches(":disabled"));
      if (isGone && isAtNothing() && timer === undefined) timer = setTimeout(take, GIVEN_BACK_MS);
    };
    const note = (event: FocusEvent) => {
      last = event.target;
    };
    const observer = new MutationObserver(look);
    observer.observe(document.body, { childList: true, subtree: true });
    document.addEventListener("focusin", note);
    return () => {
      observer.disconnect();
      document.removeEventListener("focusin", note);
      clearTimeout(timer);
    };
  }, [by]);
}
