import { type ReactNode, useEffect, useRef } from "react";
import { Link } from "wouter";
import { visible } from "../i18n/visible";
import { useFocusKept } from "./focus";
import { Icon } from "./Icon";
import styles from "./Page.module.css";

interface Props {
  title: string;
  /** What this screen is for, in a sentence. */
  lead?: ReactNode;
  back?: { to: string; words: string };
  beside?: ReactNode;
  children: ReactNode;
}

/** A screen: its heading, which takes the focus when the screen changes or what had it is gone, what can be done, and what it
 * shows. */
export function Page({ title: given, lead, back, beside, children }: Props) {
  // A study's title comes from outside.
  const title = visible(given);
  const heading = useRef<HTMLHeadingElement>(null);
  useFocusKept(heading);
  useEffect(() => {
    document.title = `${title} · Hospes`;
  }, [title]);
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
    document.getElementById("main")?.scrollTo(0, 0);
    // A narrow window scrolls as a whole.
    document.scrollingElement?.scrollTo(0, 0);
  }, []);
  return (
    <div className={styles.page}>
      {back && (
        <Link href={back.to} className={styles.back}>
          <Icon name="left" size={16} />
          {back.words}
        </Link>
      )}
      <div className={styles.head}>
        <div className={styles.words}>
          <h1 ref={heading} tabIndex={-1} className={styles.title}>
            <bdi>{title}</bdi>
          </h1>
          {lead && <div className={styles.lead}>{lead}</div>}
        </div>
        {beside && <div className={styles.beside}>{beside}</div>}
      </div>
      {children}
    </div>
  );
}
