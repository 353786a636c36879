import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { changeLanguage, LANGUAGES, type Language, language } from "../i18n";
import { useAnswer } from "../ipc/hooks";
import { Mark } from "../parts/Mark";
import styles from "./DoorFrame.module.css";

/** What stands around the sign-in: the mark, the site, the language. */
export function DoorFrame({ children }: { children: ReactNode }) {
  const { t } = useTranslation();
  const status = useAnswer("status", {});
  const site = status.data?.memberships[0];
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
        <label className={styles.language}>
          <span className="hidden">{t("settings.language")}</span>
          <select
            className={styles.select}
            value={language()}
            onChange={(event) => changeLanguage(event.target.value as Language)}
          >
            {Object.entries(LANGUAGES).map(([code, name]) => (
              <option key={code} value={code} lang={code}>
                {name}
              </option>
            ))}
          </select>
        </label>
        {status.data && <span>{status.data.software}</span>}
      </div>
    </div>
  );
}
