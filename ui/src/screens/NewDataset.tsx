import { type ReactNode, useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useLocation } from "wouter";
import { Engine } from "../i18n/engine";
import { count, list } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import type { ScanProfile, SurveyView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Check } from "../parts/Check";
import { Facts } from "../parts/Facts";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { Steps, StepTitle } from "../parts/Steps";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";
import { type Draft, EMPTY, isCopied, isCounted, newDataset, type Source } from "./register";
import { SourceChoice } from "./SourceChoice";
import { SurveyColumns } from "./SurveyColumns";
import { SurveyReading } from "./SurveyReading";
import { TermsFields, termWords } from "./TermsFields";
import { UnderReading, Unread } from "./UnderReading";

const STEPS = ["file", "columns", "use", "check"] as const;

/** Registers a dataset: a file, its columns, its use, and a look at all of it before a copy is frozen. */
export function NewDataset() {
  const { t } = useTranslation();
  const { person, may } = useMe();
  return (
    <Page
      title={t("register.title")}
      lead={t("datasets.emptyHelp")}
      back={{ to: "/datasets", words: t("datasets.all") }}
    >
      {person && (may("data_steward") ? <Wizard /> : <Notice>{t("register.needs")}</Notice>)}
    </Page>
  );
}

function Wizard() {
  const { t } = useTranslation();
  const [at, setAt] = useState(0);
  const [source, setSource] = useState<Source | null>(null);
  const [survey, setSurvey] = useState<SurveyView | null>(null);
  const [draft, setDraft] = useState<Draft>(EMPTY);
  const steps = STEPS.map((step) => t(`register.step.${step}`));
  const next = () => setAt(at + 1);
  const back = () => setAt(at - 1);
  const step = STEPS[at];
  function choose(chosen: Source) {
    setSource(chosen);
    setSurvey(null);
    // Another file or sheet has other columns; what was said about its use may well hold for it too.
    setDraft({ ...EMPTY, name: draft.name, isPublic: draft.isPublic, terms: draft.terms });
  }
  function found(survey: SurveyView) {
    setSurvey(survey);
    setDraft((draft) => ({ ...draft, sheet: survey.sheet, missing: survey.missing.join("\n") }));
  }
  function foundAgain(survey: SurveyView, scanned: ScanProfile) {
    setSurvey(survey);
    setDraft((draft) => ({ ...draft, scanned }));
  }
  return (
    <>
      <Steps label={t("register.title")} steps={steps} at={at} />
      <Card>
        {step === "file" && (
          <SourceStep source={source} survey={survey} onChosen={choose} onSurvey={found} onNext={next} />
        )}
        {step === "columns" && source && survey && (
          <Step
            title={t("register.columns")}
            lead={t("register.columnsLead")}
            onBack={back}
            onNext={next}
            isReady={draft.subject !== null && isCounted(draft, survey)}
          >
            <SurveyColumns survey={survey} draft={draft} onChange={setDraft} />
            <SurveyReading
              source={source}
              survey={survey}
              draft={draft}
              onChange={setDraft}
              onSurvey={foundAgain}
            />
          </Step>
        )}
        {step === "use" && (
          <Step title={t("register.use")} lead={t("register.useLead")} onBack={back} onNext={next}>
            <Field
              label={t("datasets.name")}
              help={t("register.nameHelp")}
              name="dataset"
              value={draft.name}
              onChange={(name) => setDraft({ ...draft, name })}
            />
            <Check
              label={t("register.public")}
              help={t("register.publicHelp")}
              value={draft.isPublic}
              onChange={(isPublic) => setDraft({ ...draft, isPublic })}
            />
            <h3>{t("datasets.terms")}</h3>
            <p className={forms.prose}>{t("register.termsHelp")}</p>
            <TermsFields terms={draft.terms} onChange={(terms) => setDraft({ ...draft, terms })} />
          </Step>
        )}
        {step === "check" && source && survey && (
          <CheckStep source={source} survey={survey} draft={draft} onBack={back} />
        )}
      </Card>
    </>
  );
}

interface StepProps {
  title: string;
  lead: string;
  onBack?: () => void;
  onNext: () => void;
  next?: string;
  isReady?: boolean;
  isPending?: boolean;
  children: ReactNode;
}

function Step(props: StepProps) {
  const { title, lead, onBack, onNext, next, isReady = true, isPending = false, children } = props;
  const { t } = useTranslation();
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        if (isReady) onNext();
      }}
    >
      <StepTitle>{title}</StepTitle>
      <p className={`${forms.lead} ${forms.prose}`}>{lead}</p>
      {children}
      <div className={forms.actions}>
        {onBack && (
          <Button onPress={onBack} isDisabled={isPending}>
            {t("setup.back")}
          </Button>
        )}
        <Button type="submit" kind="primary" isDisabled={!isReady} isPending={isPending}>
          {next ?? t("setup.next")}
        </Button>
      </div>
    </Form>
  );
}

interface SourceProps {
  source: Source | null;
  survey: SurveyView | null;
  onChosen: (chosen: Source) => void;
  onSurvey: (survey: SurveyView) => void;
  onNext: () => void;
}

function SourceStep({ source, survey, onChosen, onSurvey, onNext }: SourceProps) {
  const { t } = useTranslation();
  const [isBusy, setBusy] = useState(false);
  return (
    <Step
      title={t("register.file")}
      lead={t("register.fileLead")}
      onNext={onNext}
      isReady={survey !== null}
      isPending={isBusy}
    >
      <SourceChoice
        source={source}
        survey={survey}
        onChosen={onChosen}
        onSurvey={onSurvey}
        onBusy={setBusy}
      />
      {survey && (
        <Notice weight="good" title={t("register.found")}>
          {t("register.foundHelp", { rows: count(survey.rows), columns: count(survey.columns.length) })}{" "}
          <Engine>{survey.format}</Engine>
        </Notice>
      )}
    </Step>
  );
}

interface CheckProps {
  source: Source;
  survey: SurveyView;
  draft: Draft;
  onBack: () => void;
}

function CheckStep({ source, survey, draft, onBack }: CheckProps) {
  const { t } = useTranslation();
  const [, go] = useLocation();
  const add = useAction("add_dataset");
  const asked = newDataset(draft, survey.columns, source);
  const [inside, outside] = [true, false].map((isIn) =>
    survey.columns.filter((column) => isCopied(draft, column) === isIn).map(({ name }) => name),
  );
  const terms = asked.duo.map((tag) => termWords(tag.split("=")[0] ?? tag));
  const names = (all: string[] | undefined) => (all?.length ? list(all) : t("register.none"));
  return (
    <Step
      title={t("register.check")}
      lead={t("register.checkLead")}
      onBack={onBack}
      // Whoever went on to another screen meanwhile stays there.
      onNext={() => add.mutate({ dataset: asked }, { onSuccess: ({ id }) => go(`/datasets/${id}`) })}
      next={t("register.submit")}
      isPending={add.isPending}
    >
      <Facts
        isOurs
        facts={[
          { label: t("datasets.name"), value: asked.name },
          { label: t("register.source"), value: source.name },
          ...(source.query ? [{ label: t("database.query"), value: source.query.text }] : []),
          ...(survey.sheets.length > 1 ? [{ label: t("register.sheet"), value: survey.sheet ?? "" }] : []),
          { label: t("datasets.rows"), value: count(survey.rows) },
          { label: t("register.subject"), value: asked.subject },
          { label: t("register.missing"), value: list([t("register.emptyCell"), ...(asked.missing ?? [])]) },
          { label: t("register.scan"), value: t(`register.scans.${asked.scan}`) },
          { label: t("register.inside"), value: names(inside) },
          { label: t("register.outside"), value: names(outside) },
          { label: t("register.public"), value: t(asked.public ? "register.yes" : "register.no") },
          { label: t("datasets.terms"), value: terms.length > 0 ? list(terms) : t("datasets.noTerms") },
        ]}
      />
      <UnderReading words={t("register.freezing")} isOn={add.isPending} />
      <Unread fault={add.error} />
    </Step>
  );
}
