import type { ReactNode } from "react";
import styles from "./Empty.module.css";
import { Icon, type IconName } from "./Icon";

/** Nothing yet: what would be here, and the next step. */
export function Empty({ icon, title, children }: { icon: IconName; title: string; children: ReactNode }) {
  return (
    <div className={styles.empty}>
      <span className={styles.sign}>
        <Icon name={icon} size={24} />
      </span>
      <strong className={styles.title}>{title}</strong>
      <div className={styles.words}>{children}</div>
    </div>
  );
}
