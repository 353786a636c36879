import styles from "./Badge.module.css";
import { Icon, type IconName } from "./Icon";

/** What a state means for the person who sees it. */
export type Tone = "live" | "done" | "waits" | "calm" | "held" | "ended" | "bad";

/** Every tone has a shape of its own: colour alone says nothing. */
const SHAPES: Record<Tone, IconName> = {
  live: "dot",
  done: "check",
  waits: "clock",
  calm: "ring",
  held: "pause",
  ended: "cross",
  bad: "alarm",
};

/** A state: word, shape and colour. */
export function Badge({ tone, children }: { tone: Tone; children: string }) {
  return (
    <span className={`${styles.badge} ${styles[tone]}`}>
      <Icon name={SHAPES[tone]} size={14} />
      {children}
    </span>
  );
}
