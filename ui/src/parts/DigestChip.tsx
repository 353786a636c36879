import { grouped } from "../i18n/format";
import { Copy } from "./Copy";
import styles from "./DigestChip.module.css";

interface Props {
  digest: string;
  /** What it is the digest of, for who does not see where it stands. */
  of: string;
  /** Its first sixteen digits only; what is copied is whole. */
  isShort?: boolean;
}

/** A digest in groups of four, to be compared by eye, and to be copied. */
export function DigestChip({ digest, of, isShort = false }: Props) {
  const groups = grouped(isShort ? digest.slice(0, 16) : digest);
  return (
    <span className={styles.chip}>
      <code className={styles.digest}>
        {groups.map((group, at) => (
          <span key={at}>{group}</span>
        ))}
        {isShort && <span aria-hidden="true">…</span>}
      </code>
      <Copy text={digest} of={of} />
    </span>
  );
}
