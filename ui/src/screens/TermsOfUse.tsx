import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { useAction } from "../ipc/hooks";
import type { DatasetView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Checks } from "../parts/Checks";
import { Choice } from "../parts/Choice";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { useMe } from "../shell/session";
import { DISEASE_SPECIFIC, MODIFIERS, PERMISSIONS, readTerms, TIME_LIMIT, writeTerms } from "./duo";
import forms from "./Forms.module.css";

const words = (term: string) => named("words.duo", term.replace("DUO:", ""));

/** For what a dataset may be used, in terms of the Data Use Ontology. */
export function TermsOfUse({ dataset }: { dataset: DatasetView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  return (
    <Card title={t("datasets.terms")} lead={t("datasets.termsLead")}>
      {may("data_steward") ? <Editor dataset={dataset} /> : <Reader dataset={dataset} />}
    </Card>
  );
}

function Reader({ dataset }: { dataset: DatasetView }) {
  const { t } = useTranslation();
  if (dataset.duo.length === 0) return <p>{t("datasets.noTerms")}</p>;
  return (
    <ul>
      {dataset.duo.map((tag) => (
        <li key={tag}>
          {words(tag.split("=")[0] ?? tag)} <code>{tag}</code>
        </li>
      ))}
    </ul>
  );
}

function Editor({ dataset }: { dataset: DatasetView }) {
  const { t } = useTranslation();
  const [terms, setTerms] = useState(() => readTerms(dataset.duo));
  const tag = useAction("tag_dataset");
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        tag.mutate({ dataset: dataset.id, duo: writeTerms(terms) });
      }}
    >
      <Choice
        label={t("datasets.permission")}
        value={terms.permission}
        onChange={(permission) => setTerms({ ...terms, permission })}
        options={PERMISSIONS.map((term) => ({ value: term, label: words(term), help: term }))}
      />
      {terms.permission === DISEASE_SPECIFIC && (
        <Field
          label={t("datasets.disease")}
          help={t("datasets.diseaseHelp")}
          name="disease"
          value={terms.disease}
          onChange={(disease) => setTerms({ ...terms, disease })}
        />
      )}
      <Checks
        label={t("datasets.modifiers")}
        isWide
        value={terms.modifiers}
        onChange={(modifiers) => setTerms({ ...terms, modifiers })}
        options={MODIFIERS.map((term) => ({ value: term, label: words(term), help: term }))}
      />
      {terms.modifiers.includes(TIME_LIMIT) && (
        <Field
          label={t("datasets.until")}
          help={t("datasets.untilHelp")}
          name="until"
          value={terms.until}
          onChange={(until) => setTerms({ ...terms, until })}
          isOptional
        />
      )}
      <FaultNotice fault={tag.error} />
      <div className={forms.actions}>
        <Button type="submit" kind="primary" isPending={tag.isPending}>
          {t("datasets.saveTerms")}
        </Button>
      </div>
    </Form>
  );
}
