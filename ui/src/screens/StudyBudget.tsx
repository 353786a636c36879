import { useTranslation } from "react-i18next";
import { count, decimal, list, moment, percent } from "../i18n/format";
import type { StudyBudget as Budget } from "../ipc/types";
import { BudgetBar } from "../parts/BudgetBar";
import { Notice } from "../parts/Notice";

/** What a study takes of the privacy budget of its patients, and whether any bound holds. */
export function StudyBudget({ budget }: { budget: Budget }) {
  const { t } = useTranslation();
  const { account, epsilon, share, fits, unprotected } = budget;
  return (
    <>
      <h3>{t("privacy.budget")}</h3>
      <BudgetBar account={account} study={share} />
      <p>{t("privacy.whose", { patients: count(budget.patients) })}</p>
      {epsilon !== null && (
        <Notice weight={fits ? "note" : "danger"}>
          {t(fits ? "privacy.takes" : "privacy.tooMuch", {
            epsilon: decimal(epsilon, 2),
            share: percent(share),
          })}
        </Notice>
      )}
      {unprotected.length > 0 && (
        <Notice weight="attention">{t("privacy.bareTasks", { tasks: list(unprotected) })}</Notice>
      )}
      {account.unprotected > 0 && <p>{t("privacy.unprotected", { count: account.unprotected })}</p>}
      {account.lost !== null && <p>{t("privacy.lost", { at: moment(account.lost) })}</p>}
    </>
  );
}
