import type { ReactNode } from "react";
import { Icon, type IconName } from "./Icon";
import styles from "./Notice.module.css";

export type Weight = "good" | "note" | "attention" | "danger";

const SIGNS: Record<Weight, IconName> = { good: "check", note: "info", attention: "clock", danger: "alarm" };

interface Props {
  weight?: Weight;
  title?: string;
  beside?: ReactNode;
  children?: ReactNode;
}

/** Something to be read before going on. */
export function Notice({ weight = "note", title, beside, children }: Props) {
  return (
    <div className={`${styles.notice} ${styles[weight]}`} role={weight === "danger" ? "alert" : undefined}>
      <Icon name={SIGNS[weight]} />
      <div className={styles.words}>
        {title && <strong>{title}</strong>}
        {children && <div>{children}</div>}
      </div>
      {beside && <div className={styles.beside}>{beside}</div>}
    </div>
  );
}
