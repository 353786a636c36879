import { type ReactNode, useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useLocation } from "wouter";
import { Engine } from "../i18n/engine";
import { count, list } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import type { Chosen, ScanProfile, SurveyView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Check } from "../parts/Check";
import { Facts } from "../parts/Facts";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { Picker } from "../parts/Picker";
import { Steps, StepTitle } from "../parts/Steps";
import { useMe } from "../shell/session";
import { ChooseFile } from "./ChooseFile";
import forms from "./Forms.module.css";
import { type Draft, EMPTY, isCopied, isCounted, newDataset } from "./register";
import { SurveyColumns } from "./SurveyColumns";
import { SurveyReading } from "./SurveyReading";
import { TermsFields, termWords } from "./TermsFields";

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
  const [source, setSource] = useState<Chosen | null>(null);
  const [survey, setSurvey] = useState<SurveyView | null>(null);
  const [draft, setDraft] = useState<Draft>(EMPTY);
  const steps = STEPS.map((step) => t(`register.step.${step}`));
  const next = () => setAt(at + 1);
  const back = () => setAt(at - 1);
  const step = STEPS[at];
  function choose(chosen: Chosen) {
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
          <FileStep source={source} survey={survey} onChosen={choose} onSurvey={found} onNext={next} />
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
              file={source.file}
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

interface FileProps {
  source: Chosen | null;
  survey: SurveyView | null;
  onChosen: (chosen: Chosen) => void;
  onSurvey: (survey: SurveyView) => void;
  onNext: () => void;
}

function FileStep({ source, survey, onChosen, onSurvey, onNext }: FileProps) {
  const { t } = useTranslation();
  // Kept while another sheet is looked into, and where that one cannot be read.
  const [sheets, setSheets] = useState<string[]>(survey?.sheets ?? []);
  const [sheet, setSheet] = useState(survey?.sheet ?? null);
  const listing = useAction("sheets", setSheets);
  const look = useAction("survey", (survey) => {
    setSheets(survey.sheets);
    setSheet(survey.sheet);
    onSurvey(survey);
  });
  function choose(chosen: Chosen, sheet: string | null = null) {
    if (sheet === null) setSheets([]);
    setSheet(sheet);
    onChosen(chosen);
    const onError = () => {
      // The first sheet is often a page of words; another one may be the table.
      if (sheet === null) listing.mutate({ path: chosen.file });
    };
    look.mutate({ path: chosen.file, sheet, missing: null, scan: null }, { onError });
  }
  // A folder has no size of its own.
  const isFolder = source !== null && source.bytes === null;
  const way = {
    isDisabled: look.isPending || listing.isPending,
    onChosen: (chosen: Chosen) => choose(chosen),
  };
  return (
    <Step
      title={t("register.file")}
      lead={t("register.fileLead")}
      onNext={onNext}
      isReady={survey !== null}
      isPending={look.isPending}
    >
      <ChooseFile
        {...way}
        purpose="data"
        words={t("register.chooseFile")}
        chosen={isFolder ? null : source}
      />
      <ChooseFile
        {...way}
        purpose="images"
        words={t("register.chooseFolder")}
        chosen={isFolder ? source : null}
      />
      <p className={forms.small}>{t("register.kinds")}</p>
      {source && sheets.length > 1 && (
        <Picker
          label={t("register.sheet")}
          placeholder={t("register.chooseSheet")}
          options={sheets.map((name) => ({ value: name, label: name }))}
          value={sheet}
          isDisabled={look.isPending}
          onChange={(name) => choose(source, name)}
        />
      )}
      <div role="status">{look.isPending && <Notice>{t("register.looking")}</Notice>}</div>
      <FaultNotice fault={look.error} />
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
  source: Chosen;
  survey: SurveyView;
  draft: Draft;
  onBack: () => void;
}

function CheckStep({ source, survey, draft, onBack }: CheckProps) {
  const { t } = useTranslation();
  const [, go] = useLocation();
  const add = useAction("add_dataset");
  const asked = newDataset(draft, survey.columns, source.file);
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
      <div role="status">{add.isPending && <Notice>{t("register.freezing")}</Notice>}</div>
      <FaultNotice fault={add.error} />
    </Step>
  );
}
