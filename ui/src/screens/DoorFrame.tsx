import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { LANGUAGES, type Language, language } from "../i18n";
import { useAnswer } from "../ipc/hooks";
import { Mark } from "../parts/Mark";
import { joined } from "../parts/Membership";
import { Select } from "../parts/Select";
import { preferLanguage } from "../shell/preferences";
import styles from "./DoorFrame.module.css";

interface Props {
  /** Whether what stands in the frame asks for the language, so that the frame does not. */
  asksLanguage?: boolean;
  children: ReactNode;
}

/** What stands around the sign-in: the mark, the site, the language. */
export function DoorFrame({ asksLanguage = false, children }: Props) {
  const { t } = useTranslation();
  const status = useAnswer("status", {});
  const languages = Object.entries(LANGUAGES) as [Language, string][];
  const [site] = joined(status.data?.memberships ?? []);
  return (
    <div className={styles.frame}>
      <div className={styles.brand}>
        <Mark size={44} />
        <div>
          <strong className={styles.name}>Hospes</strong>
          <div className={styles.site}>{site ? site.site_name : t("signIn.tagline")}</div>
        </div>
      </div>
      <div className={styles.card}>{children}</div>
      <div className={styles.foot}>
        {!asksLanguage && (
          <Select
            label={t("settings.language")}
            value={language()}
            onChange={preferLanguage}
            options={languages.map(([value, label]) => ({ value, label, lang: value }))}
          />
        )}
        {status.data && <span>{status.data.software}</span>}
      </div>
    </div>
  );
}
