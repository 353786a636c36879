import { type ReactNode, type Ref, useId } from "react";
import styles from "./Card.module.css";

interface Props {
  title?: string;
  /** Its heading, where that takes the focus. */
  heading?: Ref<HTMLHeadingElement>;
  lead?: ReactNode;
  beside?: ReactNode;
  /** What is inside reaches the card's edge: a table. */
  isFlush?: boolean;
  children: ReactNode;
}

/** One surface with a heading, for what belongs together. */
export function Card({ title, heading, lead, beside, isFlush = false, children }: Props) {
  const id = useId();
  const inner = (
    <>
      {(title || beside) && (
        <div className={styles.head}>
          <div className={styles.words}>
            {title && (
              <h2 id={id} className={styles.title} {...(heading ? { ref: heading, tabIndex: -1 } : {})}>
                {title}
              </h2>
            )}
            {lead && <p className={styles.lead}>{lead}</p>}
          </div>
          {beside && <div className={styles.beside}>{beside}</div>}
        </div>
      )}
      <div className={isFlush ? styles.flush : styles.body}>{children}</div>
    </>
  );
  return title ? (
    <section aria-labelledby={id} className={styles.card}>
      {inner}
    </section>
  ) : (
    <div className={styles.card}>{inner}</div>
  );
}
