import { useTranslation } from "react-i18next";
import { count, list } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import type { ScanProfile, SurveyView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Choice } from "../parts/Choice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import forms from "./Forms.module.css";
import { type Draft, isCounted, markersOf, questions, SCANS, type Source } from "./register";
import { UnderReading, Unread } from "./UnderReading";

interface Props {
  source: Source;
  survey: SurveyView;
  draft: Draft;
  onChange: (draft: Draft) => void;
  /** The file was looked into once more, as strictly as that. */
  onSurvey: (survey: SurveyView, scan: ScanProfile) => void;
}

/** What means a missing value, and how strictly identifiers are looked for: the file is looked into again with both. */
export function SurveyReading({ source, survey, draft, onChange, onSurvey }: Props) {
  const { t } = useTranslation();
  const look = useAction("survey");
  function choose(chosen: Draft) {
    onChange(chosen);
    const { sheet, scan } = chosen;
    look.mutate(
      { path: source.path, query: source.query, sheet, missing: markersOf(chosen), scan },
      { onSuccess: (found) => onSurvey(found, scan) },
    );
  }
  const add = (marker: string) => choose({ ...draft, missing: [...markersOf(draft), marker].join("\n") });
  return (
    <>
      <Field
        label={t("register.missing")}
        help={t("register.missingHelp")}
        name="missing"
        rows={4}
        isOptional
        isMono
        value={draft.missing}
        onChange={(missing) => onChange({ ...draft, missing })}
      />
      {questions(draft, survey).map(([marker, gaps]) => (
        <Notice
          key={marker}
          weight="attention"
          title={t("register.mayBeMissing", { marker })}
          beside={
            <Button about={marker} onPress={() => add(marker)} isPending={look.isPending}>
              {t("register.meansMissing")}
            </Button>
          }
        >
          {t("register.mayBeMissingHelp", {
            columns: list(
              gaps.map(({ column, cells }) => t("register.gapOf", { column, cells: count(cells) })),
            ),
          })}
        </Notice>
      ))}
      <Choice
        label={t("register.scan")}
        value={draft.scan}
        onChange={(scan) => choose({ ...draft, scan })}
        options={SCANS.map((scan) => ({
          value: scan,
          label: t(`register.scans.${scan}`),
          help: t(`register.scanHelp.${scan}`),
        }))}
      />
      <div role="status">
        {!look.isPending && !isCounted(draft, survey) && (
          <Notice weight="attention">{t("register.notCounted")}</Notice>
        )}
      </div>
      <UnderReading words={t("register.looking")} isOn={look.isPending} />
      <Unread fault={look.error} />
      <div className={forms.actions}>
        <Button onPress={() => choose(draft)} isPending={look.isPending}>
          {t("register.countAgain")}
        </Button>
      </div>
    </>
  );
}
