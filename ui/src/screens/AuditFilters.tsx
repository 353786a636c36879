import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { moment } from "../i18n/format";
import { useAnswer, useJobs } from "../ipc/hooks";
import { Button } from "../parts/Button";
import type { Option } from "../parts/Choice";
import { Field } from "../parts/Field";
import { Picker } from "../parts/Picker";
import styles from "./Audit.module.css";
import { type AuditFilter, entryOf, momentOf, TOPICS, type Topic } from "./auditFilter";

/** Stands in a list for no choice. */
const ANY = "any";

interface Props {
  /** What is shown at present. */
  shown: AuditFilter;
  onShow: (filter: AuditFilter) => void;
}

/** What the log is filtered by. Nothing is asked before the person says so, and one button clears it all. */
export function AuditFilters({ shown, onShow }: Props) {
  const { t } = useTranslation();
  const [draft, setDraft] = useState(shown);
  const [last, setLast] = useState(shown);
  // Whoever goes back sees the filter that they came from.
  if (last !== shown) {
    setLast(shown);
    setDraft(shown);
  }
  const set = (part: keyof AuditFilter) => (value: string) => setDraft({ ...draft, [part]: value });
  const chosen = (part: keyof AuditFilter) => ({
    value: draft[part] || ANY,
    onChange: (value: string) => set(part)(value === ANY ? "" : value),
  });
  const day = (isEnd: boolean) => (text: string) =>
    text.trim() === "" || momentOf(text, isEnd) !== null ? null : t("audit.badDay");
  const number = (text: string) =>
    text.trim() === "" || entryOf(text) !== null ? null : t("audit.badNumber");
  const typed = (part: keyof AuditFilter, validate: (text: string) => string | null) => ({
    name: part,
    value: draft[part] ?? "",
    onChange: set(part),
    validate,
  });
  return (
    <Form
      className={styles.filters ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        onShow(draft);
      }}
    >
      <Picker label={t("audit.what")} options={useWhat()} {...chosen("what")} />
      <Picker label={t("audit.who")} options={useActors()} {...chosen("actor")} />
      <Picker label={t("audit.outcome")} options={useOutcomes()} {...chosen("outcome")} />
      <Picker label={t("audit.study")} options={useStudies()} {...chosen("study")} />
      <Picker label={t("audit.job")} options={useRuns(draft.job)} {...chosen("job")} />
      <Field label={t("audit.since")} help={t("audit.dayHelp")} {...typed("since", day(false))} isOptional />
      <Field label={t("audit.until")} help={t("audit.untilHelp")} {...typed("until", day(true))} isOptional />
      <Field label={t("audit.from")} help={t("audit.fromHelp")} {...typed("entry", number)} isOptional />
      <div className={styles.buttons}>
        <Button type="submit">{t("audit.filter")}</Button>
        <Button
          kind="quiet"
          icon="cross"
          onPress={() => {
            setDraft({});
            onShow({});
          }}
        >
          {t("audit.clear")}
        </Button>
      </div>
    </Form>
  );
}

/** Topics, and after them every action by itself. */
function useWhat(): Option<string>[] {
  const { t } = useTranslation();
  const topics = Object.keys(TOPICS) as Topic[];
  const actions: string[] = topics.flatMap((topic) => [...TOPICS[topic]]);
  return [
    { value: ANY, label: t("audit.any") },
    ...topics.map((topic) => ({ value: `topic.${topic}`, label: t(`audit.topic.${topic}`) })),
    ...actions.map((action) => ({ value: action, label: named("words.action", action) })),
  ];
}

/** The site's people, coordinators, and the engine. */
function useActors(): Option<string>[] {
  const { t } = useTranslation();
  const people = useAnswer("people", {});
  const memberships = useAnswer("memberships", {});
  return [
    { value: ANY, label: t("audit.anyone") },
    ...(people.data ?? []).map((person) => ({ value: person.id, label: person.name })),
    ...(memberships.data ?? []).map((of) => ({
      value: of.federation,
      label: t("audit.coordinator", { name: of.name }),
    })),
    { value: "engine", label: t("audit.engine") },
  ];
}

function useOutcomes(): Option<string>[] {
  const { t } = useTranslation();
  return [
    { value: ANY, label: t("audit.anyOutcome") },
    ...["success", "refused", "failed"].map((name) => ({ value: name, label: named("words.entry", name) })),
  ];
}

function useStudies(): Option<string>[] {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  return [
    { value: ANY, label: t("audit.anyStudy") },
    ...(requests.data ?? []).map((of) => ({ value: of.study, label: of.title })),
  ];
}

/** The newest runs, and the one that is asked for already, however old it is. */
function useRuns(asked: string | undefined): Option<string>[] {
  const { t } = useTranslation();
  const jobs = useJobs();
  const runs = (jobs.data?.pages.flat() ?? []).map((of) => ({
    value: of.job,
    label: t("audit.jobOf", { study: of.title, at: moment(of.since) }),
  }));
  const isOlder = asked !== undefined && asked !== "" && runs.every((run) => run.value !== asked);
  return [
    { value: ANY, label: t("audit.anyJob") },
    ...(isOlder ? [{ value: asked, label: asked }] : []),
    ...runs,
  ];
}
