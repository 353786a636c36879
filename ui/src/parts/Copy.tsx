import { useState } from "react";
import { Button } from "react-aria-components";
import { useTranslation } from "react-i18next";
import styles from "./Copy.module.css";
import { copied } from "./clipboard";
import { Icon } from "./Icon";

/** How long it says that it copied, in milliseconds. */
const SAID_MS = 2_000;

/** Copies a text that stands beside it. `of`: what the text is, for who does not see where it stands. */
export function Copy({ text, of }: { text: string; of: string }) {
  const { t } = useTranslation();
  const [said, setSaid] = useState<"copied" | "notCopied" | null>(null);
  async function copy() {
    setSaid((await copied(text)) ? "copied" : "notCopied");
    setTimeout(() => setSaid(null), SAID_MS);
  }
  return (
    <>
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
    </>
  );
}
