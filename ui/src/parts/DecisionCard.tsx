import type { ReactNode } from "react";
import { Link } from "wouter";
import styles from "./DecisionCard.module.css";
import { Icon, type IconName } from "./Icon";

interface Props {
  icon: IconName;
  title: ReactNode;
  to: string;
  /** What the person is asked. */
  asks: string;
  children?: ReactNode;
}

/** Something that a person must decide: what, for whom, since when. All of it leads there. */
export function DecisionCard({ icon, title, to, asks, children }: Props) {
  return (
    <article className={styles.card}>
      <span className={styles.sign}>
        <Icon name={icon} />
      </span>
      <div className={styles.words}>
        <span className={styles.asks}>{asks}</span>
        <h3 className={styles.title}>
          <Link href={to} className={styles.link}>
            {title}
          </Link>
        </h3>
        {children && <div className={styles.rest}>{children}</div>}
      </div>
      <span className={styles.go}>
        <Icon name="right" size={18} />
      </span>
    </article>
  );
}
