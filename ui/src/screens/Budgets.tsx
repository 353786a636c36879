import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { useAnswer } from "../ipc/hooks";
import { BudgetBar } from "../parts/BudgetBar";
import { Card } from "../parts/Card";
import { poolName } from "./Privacy";
import styles from "./Privacy.module.css";

/** Pools that are shown before the rest is left to their screen. */
const SHOWN = 4;

/** The privacy budget of each pool of patients, at a glance. */
export function Budgets() {
  const { t } = useTranslation();
  const pools = useAnswer("privacy", {}).data ?? [];
  if (pools.length === 0) return null;
  return (
    <Card title={t("privacy.budgets")} beside={<Link href="/privacy">{t("privacy.all")}</Link>}>
      <div className={styles.pools}>
        {pools.slice(0, SHOWN).map((pool) => (
          <div key={pool.id} className={styles.pool}>
            <strong>{poolName(pool, t("privacy.removed"))}</strong>
            <BudgetBar account={pool.account} />
          </div>
        ))}
      </div>
    </Card>
  );
}
