import { useState } from "react";
import { Button } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { grouped } from "../i18n/format";
import { copied } from "./clipboard";
import styles from "./DigestChip.module.css";
import { Icon } from "./Icon";

/** How long it says that it copied, in milliseconds. */
const SAID_MS = 2_000;

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
  const [said, setSaid] = useState<"copied" | "notCopied" | null>(null);
  const groups = grouped(isShort ? digest.slice(0, 16) : digest);
  async function copy() {
    setSaid((await copied(digest)) ? "copied" : "notCopied");
    setTimeout(() => setSaid(null), SAID_MS);
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
        <Icon name={said === "copied" ? "check" : "copy"} size={14} />
      </Button>
      <span role="status" className={said === "notCopied" ? styles.said : "hidden"}>
        {said && t(`parts.${said}`)}
      </span>
    </span>
  );
}
