import { type UIEvent, useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { Engine, named } from "../i18n/engine";
import { exactly } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { LogLevel, LogLine } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { Choice } from "../parts/Choice";
import { Why } from "../parts/Reason";
import { LevelBadge } from "../parts/states";
import forms from "./Forms.module.css";
import styles from "./JobLog.module.css";

/** From which level on lines are shown. */
const SHOWN: Record<LogLevel, LogLevel[]> = {
  info: ["info", "warning", "error"],
  warning: ["warning", "error"],
  error: ["error"],
};

/** Above this distance from its end, in pixels, a log is being read and does not follow what is added. */
const AT_END = 24;

/** What happened in a run, newest last, from a level on. */
export function JobLog({ job }: { job: string }) {
  const { t } = useTranslation();
  const [level, setLevel] = useState<LogLevel>("info");
  const log = useAnswer("job_log", { job });
  return (
    <Card
      title={t("jobs.log")}
      lead={t("jobs.logLead")}
      beside={
        <Link href="/audit" state={{ job }}>
          {t("jobs.auditOf")}
        </Link>
      }
    >
      <Choice
        label={t("jobs.level")}
        isRow
        value={level}
        onChange={setLevel}
        options={[
          { value: "info", label: t("jobs.levelAll") },
          { value: "warning", label: t("jobs.levelWarning") },
          { value: "error", label: t("jobs.levelError") },
        ]}
      />
      <Answered of={log}>
        {(lines) => <Lines lines={lines.filter((line) => SHOWN[level].includes(line.level))} />}
      </Answered>
    </Card>
  );
}

function Lines({ lines }: { lines: LogLine[] }) {
  const { t } = useTranslation();
  const place = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  useEffect(() => {
    const at = place.current;
    if (at !== null && lines.length > 0 && follows.current) at.scrollTop = at.scrollHeight;
  }, [lines.length]);
  const moved = ({ currentTarget: at }: UIEvent<HTMLDivElement>) => {
    follows.current = at.scrollHeight - at.scrollTop - at.clientHeight < AT_END;
  };
  const label = t("jobs.log");
  if (lines.length === 0) return <p className={forms.quiet}>{t("jobs.logEmpty")}</p>;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for forms
    <div ref={place} role="group" className={styles.place} aria-label={label} tabIndex={0} onScroll={moved}>
      <ol className={styles.lines}>
        {lines.map((line, at) => (
          <li key={at} className={styles.line}>
            <span className={styles.when}>{exactly(line.at)}</span>
            <LevelBadge level={line.level} />
            <div className={styles.words}>
              <Words words={line.words} />
              {line.place !== null && <Place place={line.place} />}
            </div>
          </li>
        ))}
      </ol>
    </div>
  );
}

/** What happened by its name, which is translated, and why. */
function Words({ words }: { words: string }) {
  useTranslation();
  const [name = "", ...why] = words.split(": ");
  const action = name.replaceAll(" ", "_");
  const known = named("words.action", action);
  if (known === name) return <Engine>{words}</Engine>;
  return (
    <>
      <strong>{known}</strong>
      {why.length > 0 && (
        <div>
          <Why action={action}>{why.join(": ")}</Why>
        </div>
      )}
    </>
  );
}

/** Task and round. */
function Place({ place }: { place: string }) {
  const { t } = useTranslation();
  const [, task, round] = /^(.+) (\d+)$/.exec(place) ?? [];
  return <div className={forms.small}>{task && round ? t("jobs.place", { task, round }) : place}</div>;
}
