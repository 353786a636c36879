import { useTranslation } from "react-i18next";
import styles from "./Forms.module.css";
import { ManagedCard } from "./ManagedCard";
import { Command, TryHere } from "./TryHere";

/** Takes the place of an empty service with a backup; only whoever administers the machine can. */
const RESTORE = "sudo hospes-as-service restore FILE --key-file";

/** What else can be done where a service waits for its first person. */
export function BeforeService({ ownFolder }: { ownFolder: string }) {
  const { t } = useTranslation();
  return (
    <>
      <p className={styles.small}>{t("setup.service.restore")}</p>
      <Command command={RESTORE} />
      <div className={styles.actions}>
        <TryHere folder={ownFolder} />
      </div>
    </>
  );
}

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
