import { useTranslation } from "react-i18next";
import { count } from "../i18n/format";
import type { SeriesOffer } from "../ipc/types";
import { Choice } from "../parts/Choice";
import { Field } from "../parts/Field";
import forms from "./Forms.module.css";
import { type Versions, whole } from "./series";

interface Props {
  offer: SeriesOffer;
  value: Versions;
  onChange: (value: Versions) => void;
}

/** One version of the dataset, or later ones too. */
export function SeriesChoice({ offer, value, onChange }: Props) {
  const { t } = useTranslation();
  const patients = count(offer.patients);
  const isUpTo = (text: string) => {
    const typed = whole(text);
    return typed !== null && typed <= offer.patients ? null : t("sign.fewestWrong", { patients });
  };
  const isFrom = (text: string) => {
    const typed = whole(text);
    return typed !== null && typed >= offer.patients ? null : t("sign.mostWrong", { patients });
  };
  return (
    <>
      <Choice
        label={t("sign.data")}
        value={value.scope}
        onChange={(scope) => onChange({ ...value, scope })}
        options={[
          { value: "snapshot", label: t("sign.snapshot"), help: t("sign.snapshotHelp") },
          { value: "series", label: t("sign.series"), help: t("sign.seriesHelp") },
        ]}
      />
      {value.scope === "series" && (
        <div className={forms.pair}>
          <Field
            label={t("sign.fewest")}
            help={t("sign.patientsHelp", { patients })}
            name="fewest"
            type="number"
            min={0}
            max={offer.patients}
            value={value.fewest}
            onChange={(fewest) => onChange({ ...value, fewest })}
            validate={isUpTo}
          />
          <Field
            label={t("sign.most")}
            help={t("sign.patientsHelp", { patients })}
            name="most"
            type="number"
            min={offer.patients}
            value={value.most}
            onChange={(most) => onChange({ ...value, most })}
            validate={isFrom}
          />
        </div>
      )}
    </>
  );
}
