import { type ReactNode, useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { duration, percent } from "../i18n/format";
import styles from "./Progress.module.css";

interface Props {
  label: string;
  done: number;
  all: number;
  /** What stops it. */
  children?: ReactNode;
}

/** How far long work is, and how long it still takes at the speed that it had so far. */
export function Progress({ label, done, all, children }: Props) {
  const { t } = useTranslation();
  const share = all > 0 ? done / all : 0;
  const left = useLeft(share);
  return (
    <div className={styles.progress}>
      <progress max={all} value={done} aria-label={label} />
      <span>{percent(share)}</span>
      {left !== null && <span className={styles.left}>{t("parts.timeLeft", { time: duration(left) })}</span>}
      {children}
    </div>
  );
}

/** Below these the speed of work says little. */
const [PASSED_MS, SHARE] = [3_000, 0.02];

/** How long the rest of some work takes, in milliseconds, by a part of it that was done in some time. */
export function timeLeft(passed: number, part: number, rest: number): number | null {
  return passed < PASSED_MS || part < SHARE || rest <= 0 ? null : (passed / part) * rest;
}

function useLeft(share: number): number | null {
  const begun = useRef<{ at: number; share: number } | null>(null);
  const [left, setLeft] = useState<number | null>(null);
  useEffect(() => {
    const now = performance.now();
    // What goes back is other work.
    if (begun.current === null || share < begun.current.share) begun.current = { at: now, share };
    const { at, share: before } = begun.current;
    setLeft(timeLeft(now - at, share - before, 1 - share));
  }, [share]);
  return left;
}
