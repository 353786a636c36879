import { useTranslation } from "react-i18next";
import { brief, decimal, percent } from "../i18n/format";
import type { PoolAccount } from "../ipc/types";
import { Badge } from "./Badge";
import styles from "./BudgetBar.module.css";

/** Whether the budget says how much all results together can tell about one patient. */
export function isBound({ unprotected, lost }: PoolAccount): boolean {
  return unprotected === 0 && lost === null;
}

interface Props {
  account: PoolAccount;
  /** What part of the budget a study would take. */
  study?: number;
}

/** A privacy budget: what is spent, what a study takes, what is left; and whether any bound holds at all. */
export function BudgetBar({ account, study = 0 }: Props) {
  const { t } = useTranslation();
  const spent = Math.min(1, account.share);
  const taken = Math.min(1 - spent, study);
  const words = [
    t("privacy.spent", { share: percent(spent) }),
    ...(study > 0 ? [t("privacy.study", { share: percent(study) })] : []),
    t("privacy.left", { share: percent(Math.max(0, 1 - spent - study)) }),
  ].join(" · ");
  return (
    <div className={styles.budget}>
      {/* What it shows is said below. */}
      <div className={styles.bar} aria-hidden="true">
        {spent > 0 && <span className={styles.spent} style={{ width: `${spent * 100}%` }} />}
        {taken > 0 && <span className={styles.study} style={{ width: `${taken * 100}%` }} />}
      </div>
      <div className={styles.words}>
        <span>{words}</span>
        {!isBound(account) && <Badge tone="waits">{t("privacy.noBound")}</Badge>}
      </div>
      <div className={styles.of}>
        {t("privacy.of", {
          spent: decimal(account.spent, 2),
          most: brief(account.epsilon),
          delta: brief(account.delta),
        })}
      </div>
    </div>
  );
}
