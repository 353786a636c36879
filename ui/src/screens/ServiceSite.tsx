import { useTranslation } from "react-i18next";
import styles from "./Forms.module.css";
import { ManagedCard } from "./ManagedCard";

/** Where a service keeps its site and its keys, which nobody chooses at a window, and what the hospital's IT set for it. */
export function ServiceKeys({ folder }: { folder: string }) {
  const { t } = useTranslation();
  return (
    <>
      <p>{t("setup.service.keysHelp")}</p>
      <p className={styles.small}>
        {t("setup.folder")} <code>{folder}</code>
      </p>
      <ManagedCard />
    </>
  );
}
