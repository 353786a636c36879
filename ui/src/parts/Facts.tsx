import { useTranslation } from "react-i18next";
import type { Fact } from "../ipc/types";

/** Labelled facts; what nobody stated reads "not stated", never blank. */
export function Facts({ facts }: { facts: Fact[] }) {
  const { t } = useTranslation();
  return (
    <dl>
      {facts.map((fact) => (
        <div key={fact.label} className="fact">
          <dt>{fact.label}</dt>
          <dd>{fact.value ?? <em>{t("review.notStated")}</em>}</dd>
        </div>
      ))}
    </dl>
  );
}
