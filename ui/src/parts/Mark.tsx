import styles from "./Mark.module.css";

/** Host and guest; only the lit overlap leaves. */
export function Mark({ size = 28 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 64 64" aria-hidden="true" focusable="false">
      <rect className={styles.host} x="5" y="5" width="38" height="38" rx="9" />
      <rect className={styles.guest} x="21" y="21" width="38" height="38" rx="9" />
      <rect className={styles.lit} x="21" y="21" width="22" height="22" rx="5" />
    </svg>
  );
}
