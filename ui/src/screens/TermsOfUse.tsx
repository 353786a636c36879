import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { DatasetView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";
import { readTerms, type Terms, writeTerms } from "./duo";
import forms from "./Forms.module.css";
import { TermsFields, termWords } from "./TermsFields";

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
          {termWords(tag.split("=")[0] ?? tag)} <code>{tag}</code>
        </li>
      ))}
    </ul>
  );
}

function Editor({ dataset }: { dataset: DatasetView }) {
  const { t } = useTranslation();
  const now = dataset.duo.join();
  // What was not touched follows what counts.
  const [draft, setDraft] = useState<{ terms: Terms; from: string } | null>(null);
  const terms = draft?.terms ?? readTerms(dataset.duo);
  const tag = useAction("tag_dataset", () => setDraft(null));
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        tag.mutate({ dataset: dataset.id, duo: writeTerms(terms) });
      }}
    >
      <TermsFields
        terms={terms}
        onChange={(terms) => {
          tag.reset();
          setDraft({ terms, from: draft?.from ?? now });
        }}
      />
      {draft !== null && draft.from !== now && (
        <Notice weight="attention">{t("parts.changedMeanwhile")}</Notice>
      )}
      <FaultNotice fault={tag.error} />
      <div className={forms.actions}>
        <Button type="submit" kind="primary" isPending={tag.isPending}>
          {t("datasets.saveTerms")}
        </Button>
      </div>
      <div role="status">{tag.isSuccess && <Notice weight="good">{t("datasets.termsSaved")}</Notice>}</div>
    </Form>
  );
}
