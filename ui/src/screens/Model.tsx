import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { moment } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import type { JobView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { DigestChip } from "../parts/DigestChip";
import { Empty } from "../parts/Empty";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { Sections } from "../parts/Sections";
import { useMe } from "../shell/session";
import { CompareFigure } from "./CompareFigure";
import forms from "./Forms.module.css";
import { ModelCopy } from "./ModelCopy";
import { ReleaseBadge } from "./Models";
import { ReportCard } from "./ReportCard";
import { type Judged, judged } from "./rounds";
import { useRun } from "./run";

/** How good the model of a run is on this site's rows, against this site alone, the release of what is held, and the model
 * itself once it is released. */
export function Model({ job: id }: { job: string }) {
  const { t } = useTranslation();
  const query = useRun(id);
  const job = query.data;
  return (
    <Page
      title={job?.title ?? t("models.one")}
      back={{ to: "/models", words: t("models.all") }}
      beside={job && <ReleaseBadge job={job} />}
    >
      <Answered of={query}>
        {(job) => {
          const reports = judged(job.rounds);
          return (
            <>
              <Notice weight="attention">{t("models.researchOnly")}</Notice>
              <Release job={job} />
              <ModelCopy job={job} />
              <Reports job={job} />
              {job.state === "success" && reports.some(judgesModel) && job.comparisons.length === 0 && (
                <Notice title={t("models.noComparison")}>{t("models.noComparisonHelp")}</Notice>
              )}
              {!query.maySee && <Notice>{t("models.noLook")}</Notice>}
              {query.maySee && reports.length === 0 && (
                <Card>
                  <Empty icon="models" title={t("models.noFigures")}>
                    {t("models.noFiguresHelp")}
                  </Empty>
                </Card>
              )}
            </>
          );
        }}
      </Answered>
    </Page>
  );
}

/** Whether a report says how good a model is. */
const judgesModel = ({ report }: Judged) => !("statistics" in report || "regression" in report);

/** The comparison first, then each task that judged a model. */
function Reports({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const compared = job.comparisons.map((comparison) => ({
    id: `${comparison.alone ?? ""} ${comparison.federated}`,
    name: t("models.compare"),
    content: <CompareFigure comparison={comparison} />,
  }));
  const reports = judged(job.rounds).map((of) => ({
    id: of.task,
    name: t("models.judgedBy", { task: of.task }),
    content: <ReportCard of={of} />,
  }));
  const sections = [...compared, ...reports];
  return sections.length === 0 ? null : <Sections label={t("models.results")} sections={sections} />;
}

function Release({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const { inside } = useMe();
  const [isAsking, setAsking] = useState(false);
  const release = useAction("release", () => setAsking(false));
  return (
    <Card
      title={t("models.release")}
      beside={
        job.held &&
        inside("data_steward", "data_access_approver") && (
          <Button kind="primary" onPress={() => setAsking(true)}>
            {t("models.releaseNow")}
          </Button>
        )
      }
    >
      <p className={forms.prose}>
        {job.held
          ? t("models.heldHelp")
          : job.released !== null
            ? t("models.releasedHelp", { at: moment(job.released) })
            : t("models.nothingHeldHelp")}
      </p>
      {job.model !== null && (
        <div>
          <div className={forms.small}>{t("models.digest")}</div>
          <DigestChip digest={job.model} of={t("models.digest")} />
        </div>
      )}
      <div>
        <Link href={`/jobs/${job.job}`}>{t("models.toRun")}</Link>
      </div>
      <Confirm
        title={t("models.releaseNow")}
        yes={t("models.releaseNow")}
        isOpen={isAsking}
        action={release}
        onClose={() => setAsking(false)}
        onYes={() => release.mutate({ job: job.job })}
      >
        <p>{t("models.releaseHelp")}</p>
      </Confirm>
    </Card>
  );
}
