import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { day as dayOf, moment } from "../i18n/format";
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
      <Picker label={t("audit.study")} options={useStudies(draft.study)} {...chosen("study")} />
      <Picker label={t("audit.job")} options={useRuns(draft.job)} {...chosen("job")} />
      <Picker label={t("audit.approval")} options={useApprovals(draft.approval)} {...chosen("approval")} />
      <Picker label={t("audit.dataset")} options={useDatasets(draft.dataset)} {...chosen("dataset")} />
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

function useStudies(asked: string | undefined): Option<string>[] {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  const studies = (requests.data ?? []).map((of) => ({ value: of.study, label: of.title }));
  return [{ value: ANY, label: t("audit.anyStudy") }, ...withAsked(asked, studies)];
}

/** The newest runs, and the one that is asked for already, however old it is. */
function useRuns(asked: string | undefined): Option<string>[] {
  const { t } = useTranslation();
  const jobs = useJobs();
  const runs = (jobs.data?.pages.flat() ?? []).map((of) => ({
    value: of.job,
    label: t("audit.jobOf", { study: of.title, at: moment(of.since) }),
  }));
  return [{ value: ANY, label: t("audit.anyJob") }, ...withAsked(asked, runs)];
}

/** Approvals in force, and the one that is asked for already. */
function useApprovals(asked: string | undefined): Option<string>[] {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  const inForce = (requests.data ?? []).flatMap(({ title, in_force: of }) => {
    if (!of) return [];
    return [{ value: of.approval, label: t("audit.approvalOf", { study: title, until: dayOf(of.expires) }) }];
  });
  return [{ value: ANY, label: t("audit.anyApproval") }, ...withAsked(asked, inForce)];
}

/** Datasets that are here, and the one that is asked for already. */
function useDatasets(asked: string | undefined): Option<string>[] {
  const { t } = useTranslation();
  const datasets = useAnswer("datasets", {});
  const here = (datasets.data ?? []).map((of) => ({ value: of.id, label: of.name }));
  return [{ value: ANY, label: t("audit.anyDataset") }, ...withAsked(asked, here)];
}

/** What is asked for stands among what can be chosen, by its id where it is over or no longer here. */
function withAsked(asked: string | undefined, options: Option<string>[]): Option<string>[] {
  const isMissing = asked !== undefined && asked !== "" && options.every((option) => option.value !== asked);
  return isMissing ? [{ value: asked, label: asked }, ...options] : options;
}
