import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { Checks } from "../parts/Checks";
import { Choice } from "../parts/Choice";
import { Field } from "../parts/Field";
import { DISEASE_SPECIFIC, MODIFIERS, PERMISSIONS, type Terms, TIME_LIMIT } from "./duo";

/** A term of the Data Use Ontology in words. */
export const termWords = (term: string) => named("words.duo", term.replace("DUO:", ""));

/** Terms of use, filled in. */
export function TermsFields({ terms, onChange }: { terms: Terms; onChange: (terms: Terms) => void }) {
  const { t } = useTranslation();
  return (
    <>
      <Choice
        label={t("datasets.permission")}
        value={terms.permission}
        onChange={(permission) => onChange({ ...terms, permission })}
        options={PERMISSIONS.map((term) => ({ value: term, label: termWords(term), help: term }))}
      />
      {terms.permission === DISEASE_SPECIFIC && (
        <Field
          label={t("datasets.disease")}
          help={t("datasets.diseaseHelp")}
          name="disease"
          value={terms.disease}
          onChange={(disease) => onChange({ ...terms, disease })}
        />
      )}
      <Checks
        label={t("datasets.modifiers")}
        isWide
        value={terms.modifiers}
        onChange={(modifiers) => onChange({ ...terms, modifiers })}
        options={MODIFIERS.map((term) => ({ value: term, label: termWords(term), help: term }))}
      />
      {terms.modifiers.includes(TIME_LIMIT) && (
        <Field
          label={t("datasets.until")}
          help={t("datasets.untilHelp")}
          name="until"
          value={terms.until}
          onChange={(until) => onChange({ ...terms, until })}
          isOptional
        />
      )}
    </>
  );
}
