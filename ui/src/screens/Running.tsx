import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { count } from "../i18n/format";
import { useJob, useJobs } from "../ipc/hooks";
import type { JobView } from "../ipc/types";
import { Card } from "../parts/Card";
import { JobBadge } from "../parts/states";
import { useMe } from "../shell/session";
import styles from "./Home.module.css";
import { LossFigure } from "./LossFigure";
import { losses } from "./rounds";

/** Runs of which the loss is drawn on the home screen; the others are a click away. */
const DRAWN = 2;

/** What runs at present, with its loss for those who may see it. */
export function Running() {
  const { t } = useTranslation();
  const jobs = useJobs();
  const running = (jobs.data?.pages.flat() ?? []).filter((job) => job.state === "running");
  return (
    <Card title={t("home.running")}>
      {running.length === 0 && <p className={styles.note}>{t("home.nothingRuns")}</p>}
      {running.map((job, at) => (
        <Run key={job.job} job={job} isDrawn={at < DRAWN} />
      ))}
    </Card>
  );
}

function Run({ job, isDrawn }: { job: JobView; isDrawn: boolean }) {
  const { t } = useTranslation();
  const { maySee } = useMe();
  const seen = useJob(job.job, isDrawn && maySee);
  const rounds = seen.data?.rounds;
  const curves = useMemo(() => [...losses(rounds ?? [])], [rounds]);
  return (
    <div className={styles.run}>
      <div className={styles.runHead}>
        <Link href={`/jobs/${job.job}`}>{job.title}</Link>
        <JobBadge state={job.state} isPaused={job.paused != null} />
      </div>
      <p className={styles.note}>
        {t("home.rounds", { count: job.rounds_in_all, shown: count(job.rounds_in_all) })}
      </p>
      {curves.map(([task, rows]) => (
        <LossFigure key={task} task={task} rows={rows} height={190} />
      ))}
    </div>
  );
}
