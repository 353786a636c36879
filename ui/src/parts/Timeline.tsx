import type { ReactNode } from "react";
import { Icon, type IconName } from "./Icon";
import styles from "./Timeline.module.css";

export interface Moment {
  id: string;
  icon: IconName;
  what: ReactNode;
  when?: string;
  isDone: boolean;
  isBad?: boolean;
}

/** Steps in order: those done, and those still open. */
export function Timeline({ label, moments }: { label: string; moments: Moment[] }) {
  return (
    <ol aria-label={label} className={styles.timeline}>
      {moments.map((moment) => (
        <li key={moment.id} className={moment.isBad ? styles.bad : moment.isDone ? styles.done : styles.open}>
          <span className={styles.sign}>
            <Icon name={moment.icon} size={16} />
          </span>
          <div>
            {moment.what}
            {moment.when && <div className={styles.when}>{moment.when}</div>}
          </div>
        </li>
      ))}
    </ol>
  );
}
