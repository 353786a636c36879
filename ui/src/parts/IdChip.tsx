import { Copy } from "./Copy";
import styles from "./DigestChip.module.css";

interface Props {
  id: string;
  /** Whose it is, for who does not see where it stands; where it is left out, there is nothing to copy it with. */
  of?: string;
}

/** An id as the log has it. */
export function IdChip({ id, of }: Props) {
  return (
    <span className={styles.chip}>
      <code className={styles.id}>{id}</code>
      {of !== undefined && <Copy text={id} of={of} />}
    </span>
  );
}
