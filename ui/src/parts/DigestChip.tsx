import { useState } from "react";
import { Button } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { grouped } from "../i18n/format";
import styles from "./DigestChip.module.css";
import { Icon } from "./Icon";

interface Props {
  digest: string;
  /** What it is the digest of, for who does not see where it stands. */
  of: string;
  /** Its first sixteen digits only; what is copied is whole. */
  isShort?: boolean;
}

/** A digest in groups of four, to be compared by eye, and to be copied. */
export function DigestChip({ digest, of, isShort = false }: Props) {
  const { t } = useTranslation();
  const [copied, setCopied] = useState(false);
  const groups = grouped(isShort ? digest.slice(0, 16) : digest);
  async function copy() {
    await navigator.clipboard.writeText(digest);
    setCopied(true);
    setTimeout(() => setCopied(false), 2_000);
  }
  return (
    <span className={styles.chip}>
      <code className={styles.digest}>
        {groups.map((group, at) => (
          <span key={at}>{group}</span>
        ))}
        {isShort && <span aria-hidden="true">…</span>}
      </code>
      <Button
        className={styles.copy ?? ""}
        aria-label={t("parts.copy", { what: of })}
        onPress={() => void copy()}
      >
        <Icon name={copied ? "check" : "copy"} size={14} />
      </Button>
      <span role="status" className="hidden">
        {copied ? t("parts.copied") : ""}
      </span>
    </span>
  );
}
