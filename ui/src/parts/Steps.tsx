import { type ReactNode, useEffect, useRef } from "react";
import { Icon } from "./Icon";
import styles from "./Steps.module.css";

interface Props {
  /** What the steps lead to. */
  label: string;
  steps: string[];
  at: number;
}

/** Where a person is on a way of a few steps. */
export function Steps({ label, steps, at }: Props) {
  return (
    <ol aria-label={label} className={styles.steps}>
      {steps.map((step, i) => (
        <li
          key={step}
          aria-current={i === at ? "step" : undefined}
          className={i < at ? styles.done : i === at ? styles.now : styles.later}
        >
          <span className={styles.sign} aria-hidden>
            {i < at ? <Icon name="check" size={14} /> : i + 1}
          </span>
          {step}
        </li>
      ))}
    </ol>
  );
}

/** Heading of a step, which takes the focus when the step begins. */
export function StepTitle({ isFirst = false, children }: { isFirst?: boolean; children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus({ preventScroll: true }), []);
  const Heading = isFirst ? "h1" : "h2";
  return (
    <Heading ref={heading} tabIndex={-1} className={styles.title}>
      {children}
    </Heading>
  );
}
