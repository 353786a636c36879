import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Chosen, Fault, SurveyView } from "../ipc/types";
import { Choice } from "../parts/Choice";
import { Picker } from "../parts/Picker";
import { ChooseFile } from "./ChooseFile";
import forms from "./Forms.module.css";
import { ofFile, type Source } from "./register";
import { ServerQuery } from "./ServerQuery";
import { SqliteQuery } from "./SqliteQuery";
import { UnderReading, Unread } from "./UnderReading";

const WAYS = ["file", "server", "sqlite"] as const;
type Way = (typeof WAYS)[number];

function wayOf(source: Source | null): Way {
  if (!source?.query) return "file";
  return source.query.database === null ? "sqlite" : "server";
}

interface Props {
  source: Source | null;
  survey: SurveyView | null;
  onChosen: (chosen: Source) => void;
  onSurvey: (survey: SurveyView) => void;
  /** Whether something is being read. */
  onBusy: (isBusy: boolean) => void;
}

/** Where rows come from. What was chosen is looked into at once. */
export function SourceChoice({ source, survey, onChosen, onSurvey, onBusy }: Props) {
  const { t } = useTranslation();
  const [way, setWay] = useState<Way>(wayOf(source));
  // Kept while another sheet is looked into, and where that one cannot be read.
  const [sheets, setSheets] = useState<string[]>(survey?.sheets ?? []);
  const [sheet, setSheet] = useState(survey?.sheet ?? null);
  const listing = useAction("sheets", setSheets);
  const look = useAction("survey", (survey) => {
    setSheets(survey.sheets);
    setSheet(survey.sheet);
    onSurvey(survey);
  });
  function choose(chosen: Source, sheet: string | null = null) {
    if (sheet === null) setSheets([]);
    setSheet(sheet);
    onChosen(chosen);
    onBusy(true);
    const { path, query } = chosen;
    const onError = ({ code }: Fault) => {
      // The first sheet is often a page of words; another one may be the table.
      if (sheet === null && query === null && code !== "stopped") listing.mutate({ path });
    };
    const onSettled = () => onBusy(false);
    look.mutate({ path, sheet, missing: null, scan: null, query }, { onError, onSettled });
  }
  const isBusy = look.isPending || listing.isPending;
  return (
    <>
      <Choice
        label={t("database.way")}
        value={way}
        onChange={setWay}
        options={WAYS.map((way) => ({ value: way, label: t(`database.ways.${way}`) }))}
        isRow
      />
      {way === "file" && <FileChoice source={source} isBusy={isBusy} onChosen={choose} />}
      {way === "server" && <ServerQuery source={source} isBusy={isBusy} onChosen={choose} />}
      {way === "sqlite" && <SqliteQuery source={source} isBusy={isBusy} onChosen={choose} />}
      {way === "file" && source && sheets.length > 1 && (
        <Picker
          label={t("register.sheet")}
          placeholder={t("register.chooseSheet")}
          options={sheets.map((name) => ({ value: name, label: name }))}
          value={sheet}
          isDisabled={look.isPending}
          onChange={(name) => choose(source, name)}
        />
      )}
      <UnderReading words={t("register.looking")} isOn={look.isPending} />
      <Unread fault={look.error} />
    </>
  );
}

interface WayProps {
  source: Source | null;
  isBusy: boolean;
  onChosen: (chosen: Source) => void;
}

function FileChoice({ source, isBusy, onChosen }: WayProps) {
  const { t } = useTranslation();
  const file = source && source.query === null ? { ...source, file: source.path } : null;
  // A folder has no size of its own.
  const isFolder = file !== null && file.bytes === null;
  const way = { isDisabled: isBusy, onChosen: (chosen: Chosen) => onChosen(ofFile(chosen)) };
  return (
    <>
      <ChooseFile {...way} purpose="data" words={t("register.chooseFile")} chosen={isFolder ? null : file} />
      <ChooseFile
        {...way}
        purpose="images"
        words={t("register.chooseFolder")}
        chosen={isFolder ? file : null}
      />
      <p className={forms.small}>{t("register.kinds")}</p>
    </>
  );
}
