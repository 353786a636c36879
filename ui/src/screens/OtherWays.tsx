import { useTranslation } from "react-i18next";
import { Button } from "../parts/Button";
import styles from "./Forms.module.css";
import { TryHere } from "./TryHere";

interface Props {
  /** Where a site of this account would lie, if it is the service's that is set up here. */
  ownFolder: string | undefined;
  onRestore: () => void;
}

/** What few want in place of a new site, quietly below what most do. */
export function OtherWays({ ownFolder, onRestore }: Props) {
  const { t } = useTranslation();
  return (
    <div className={styles.aside}>
      <p className={styles.quiet}>{t("setup.restoreWhen")}</p>
      <Button kind="quiet" onPress={onRestore}>
        {t("backup.restoreInstead")}
      </Button>
      {ownFolder !== undefined && <TryHere folder={ownFolder} />}
    </div>
  );
}
