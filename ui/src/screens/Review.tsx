import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine, named } from "../i18n/engine";
import { count } from "../i18n/format";
import { visible } from "../i18n/visible";
import { useAnswer, useFollowing } from "../ipc/hooks";
import type { DatasetView, Finding, NameMark, Review as ReviewDocument } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { Diff } from "../parts/Diff";
import { DigestChip } from "../parts/DigestChip";
import { LongText } from "../parts/LongText";
import { Likeness } from "../parts/Name";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { Picker } from "../parts/Picker";
import { Sections } from "../parts/Sections";
import { RequestBadge } from "../parts/states";
import { useMe } from "../shell/session";
import { Decision } from "./Decision";
import { DryRun } from "./DryRun";
import forms from "./Forms.module.css";
import styles from "./Review.module.css";
import { Data, Output, People, Project, Setting } from "./ReviewTabs";
import { comesFrom } from "./rules";

/** A request as people read it before they sign, by the Five Safes. */
export function Review({ study }: { study: string }) {
  const { t } = useTranslation();
  const [dataset, setDataset] = useState<string | null>(null);
  const { inside } = useMe();
  const query = useFollowing("review", { study, dataset });
  const datasets = useAnswer("datasets", {}, inside());
  const back = { to: "/requests", words: t("review.back") };
  if (query.data === undefined) {
    return (
      <Page title={t("review.title")} back={back}>
        <Answered of={query}>{() => null}</Answered>
      </Page>
    );
  }
  const review = query.data;
  return (
    <Page title={review.title} back={back} beside={<RequestBadge state={review.state} />}>
      <Answered of={query}>{() => null}</Answered>
      <Summary review={review} />
      <Which review={review} datasets={datasets.data ?? []} chosen={dataset} onChoose={setDataset} />
      <Findings review={review} />
      {review.changes !== null && (
        <Card title={t("review.changes")} lead={t("review.changesLead")}>
          {review.changes.length === 0 ? <p>{t("review.noChanges")}</p> : <Diff changes={review.changes} />}
        </Card>
      )}
      <Tabs review={review} />
      {!query.isPlaceholderData && <DryRun review={review} dataset={dataset} />}
      {/* Nobody signs what is about another dataset than the chosen one. */}
      {!query.isPlaceholderData && <Decision review={review} dataset={dataset} />}
    </Page>
  );
}

/** What must be read first, and the request in one paragraph. */
function Summary({ review }: { review: ReviewDocument }) {
  const { t } = useTranslation();
  return (
    <Card>
      <p className={styles.summary}>
        <LongText>{review.summary}</LongText>
      </p>
      {review.banners.map((banner) => (
        <Notice key={banner} weight="attention">
          <Engine>{banner}</Engine>
        </Notice>
      ))}
      <dl className={styles.digests}>
        <div>
          <dt>{t("review.digest")}</dt>
          <dd>
            <DigestChip digest={review.study_digest} of={t("review.digest")} isShort />
          </dd>
        </div>
        <div>
          <dt>{t("review.planDigest")}</dt>
          <dd>
            <DigestChip digest={review.plan_digest} of={t("review.planDigest")} isShort />
          </dd>
        </div>
      </dl>
      <p className={forms.small}>{t("review.digestHelp")}</p>
    </Card>
  );
}

interface WhichProps {
  review: ReviewDocument;
  datasets: DatasetView[];
  chosen: string | null;
  onChoose: (id: string) => void;
}

/** Where more than one dataset has the columns, a person says which one is meant. */
function Which({ review, datasets, chosen, onChoose }: WhichProps) {
  const { t } = useTranslation();
  const fitting = datasets.filter((d) => review.data.candidates.includes(d.name));
  if (fitting.length < 2 || review.signatures.length > 0) return null;
  return (
    <Card title={t("review.which")} lead={t("review.whichLead")}>
      <Picker
        label={t("review.dataset")}
        options={fitting.map((d) => ({
          value: d.id,
          label: d.name,
          help: t("review.patients", { count: d.subjects_left }),
        }))}
        value={chosen}
        onChange={onChoose}
        placeholder={t("review.choose")}
      />
    </Card>
  );
}

/** Rules that refuse, and points that a person has to weigh. */
function Findings({ review }: { review: ReviewDocument }) {
  const { t } = useTranslation();
  const refusing = review.findings.filter((finding) => finding.refuses);
  const notes = review.findings.filter((finding) => !finding.refuses);
  if (review.findings.length === 0 && review.marks.length === 0) return null;
  return (
    <Card title={t("review.findings")} lead={t("review.findingsLead")}>
      {/* All in one: an alert of each would be a burst. */}
      {refusing.length > 0 && (
        <Notice weight="danger" title={t("review.refuses")}>
          <Rules of={refusing} />
        </Notice>
      )}
      {notes.length > 0 && (
        <Notice weight="attention" title={t("review.note")}>
          <Rules of={notes} />
        </Notice>
      )}
      {review.marks.length > 0 && (
        <Notice weight="attention" title={t("review.names")}>
          <Marks of={review.marks} />
        </Notice>
      )}
    </Card>
  );
}

function Rules({ of }: { of: Finding[] }) {
  return (
    <ul className={styles.sentences}>
      {of.map((finding) => (
        <li key={finding.rule + finding.words}>
          <Rule finding={finding} />
        </li>
      ))}
    </ul>
  );
}

/** So many marks the engine gives at most. */
const MOST_MARKS = 100;

/** Names that may be taken for others, each with the letters that give it away. */
function Marks({ of }: { of: NameMark[] }) {
  const { t } = useTranslation();
  return (
    <ul className={styles.sentences}>
      {of.map((mark) => (
        <li key={`${mark.of} ${mark.name}`}>
          {named("words.nameOf", mark.of)} ‹<bdi>{visible(mark.name)}</bdi>›: <Likeness mark={mark} />
        </li>
      ))}
      {of.length >= MOST_MARKS && <li>{t("review.namesCut", { shown: count(of.length) })}</li>}
    </ul>
  );
}

function Rule({ finding }: { finding: Finding }) {
  const from = comesFrom(finding.rule);
  return (
    <>
      <LongText>{finding.words}</LongText>
      {from !== null && <small className={styles.rule}>{named("words.ruleFrom", from)}</small>}
    </>
  );
}

function Tabs({ review }: { review: ReviewDocument }) {
  const { t } = useTranslation();
  const missing = review.data.columns_missing.length;
  return (
    <Card title={t("review.five")} lead={t("review.fiveLead")}>
      <Sections
        label={t("review.five")}
        sections={[
          { id: "project", name: t("review.project"), content: <Project review={review} /> },
          { id: "people", name: t("review.people"), content: <People review={review} /> },
          { id: "setting", name: t("review.setting"), content: <Setting review={review} /> },
          { id: "data", name: t("review.data"), count: missing, content: <Data review={review} /> },
          { id: "output", name: t("review.output"), content: <Output review={review} /> },
        ]}
      />
    </Card>
  );
}
