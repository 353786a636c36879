import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { Engine } from "../i18n/engine";
import { count, exactly, moment } from "../i18n/format";
import { visible } from "../i18n/visible";
import { useAction, useAnswer } from "../ipc/hooks";
import type { JobView, RoundView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { FaultNotice } from "../parts/FaultNotice";
import { Known } from "../parts/Known";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { Progress } from "../parts/Progress";
import { Reason } from "../parts/Reason";
import { JobBadge, RoundBadge } from "../parts/states";
import { Table } from "../parts/Table";
import { useMe } from "../shell/session";
import { BytesOut } from "./BytesOut";
import forms from "./Forms.module.css";
import styles from "./Job.module.css";
import { JobLog } from "./JobLog";
import { LossFigure } from "./LossFigure";
import { RoundFigure } from "./RoundFigure";
import { drawn, failure, figuresByRound, losses } from "./rounds";
import { useRun } from "./run";
import { Tasks } from "./Tasks";

/** An engine that is older than this page says nothing about it. */
const isPaused = ({ paused }: JobView) => paused != null;

const isOver = ({ state }: JobView) => !["ready", "waiting", "running"].includes(state);

/** A run as it goes: its tasks, its rounds, its loss and figures, its log, what it sent; and the way to stop it. */
export function Job({ job: id }: { job: string }) {
  const { t } = useTranslation();
  const { inside } = useMe();
  const query = useRun(id);
  const job = query.data;
  return (
    <Page
      title={job?.title ?? t("jobs.one")}
      lead={job && t("jobs.begun", { at: moment(job.since) })}
      back={{ to: "/jobs", words: t("jobs.all") }}
      beside={job && <JobBadge state={job.state} isPaused={isPaused(job)} />}
    >
      <Answered of={query}>
        {(job) => (
          <>
            {job.reason !== null && (
              <Notice weight={job.state === "failed" ? "danger" : "note"} title={t("jobs.why")}>
                {job.state === "cancelled" ? <Reason>{job.reason}</Reason> : <Engine>{job.reason}</Engine>}
              </Notice>
            )}
            {isPaused(job) && (
              <Notice weight="attention" title={t("jobs.pausedTitle")}>
                <p>{visible(job.paused ?? "")}</p>
                <p>{t("jobs.pausedHelp")}</p>
              </Notice>
            )}
            <Facts job={job} />
            <Protection job={job} />
            <Tasks job={job} />
            {query.maySee ? <Curves job={job} /> : <Notice>{t("models.noLook")}</Notice>}
            <Rounds job={job} />
            {inside() && <JobLog job={job.job} />}
          </>
        )}
      </Answered>
    </Page>
  );
}

/** What protects what leaves, and how the other sites are known; an engine that is older than this page says neither. */
function Protection({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const sentences = job.protection ?? [];
  return (
    <>
      {sentences.length > 0 && (
        <Notice title={t("jobs.protection")}>
          {sentences.map((sentence) => (
            <p key={sentence}>
              <Engine>{sentence}</Engine>
            </p>
          ))}
        </Notice>
      )}
      <Known sites={job.others ?? []} />
    </>
  );
}

/** That there is no figure yet, and which tasks have one; whoever may not see the plan's tasks reads the first alone. */
function OnlyLoss({ job: { tasks }, task }: { job: JobView; task: string }) {
  const { t } = useTranslation();
  const judges = tasks.filter(({ component }) => component === "evaluation");
  const isJudged = judges.some(({ inputs }) => inputs.some((input) => input.task === task));
  return (
    <p className={forms.small}>
      {t("models.judgedAtEnd")}
      {tasks.length > 0 && ` ${t(isJudged ? "models.judgedUnder" : "models.judgedNever")}`}
    </p>
  );
}

/** Loss and figures over the rounds, task by task. Where a plan judges a model only at its end, or never, that is said. */
function Curves({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const curves = useMemo(() => losses(job.rounds), [job.rounds]);
  const figures = useMemo(() => figuresByRound(job.rounds), [job.rounds]);
  const fits = [...figures].filter(
    ([task, rows]) => !curves.has(task) && rows.length > 1 && drawn(rows).length > 0,
  );
  return (
    <>
      {[...curves].map(([task, rows]) => (
        <Card key={task} title={t("models.lossOf", { task })}>
          <LossFigure task={task} rows={rows} />
          {figures.has(task) ? (
            <RoundFigure task={task} rows={figures.get(task) ?? []} />
          ) : (
            <OnlyLoss job={job} task={task} />
          )}
          <p className={forms.small}>{t("models.stays")}</p>
        </Card>
      ))}
      {fits.map(([task, rows]) => (
        <Card key={task} title={t("models.figuresOf", { task })}>
          <RoundFigure task={task} rows={rows} />
          <p className={forms.small}>{t("models.stays")}</p>
        </Card>
      ))}
    </>
  );
}

function Facts({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const working = job.rounds.find((round) => round.progress !== null);
  const [done, all] = working?.progress ?? [0, 0];
  const notes = new Set(job.rounds.flatMap((round) => (round.note === null ? [] : [round.note])));
  return (
    <Card>
      <div className={styles.facts}>
        <div>
          <div className={styles.label}>{t("jobs.rounds")}</div>
          <div className={styles.value}>{count(job.rounds_in_all)}</div>
        </div>
        <div>
          <div className={styles.label}>{t("jobs.bytesOut")}</div>
          <div className={styles.value}>
            <BytesOut job={job} />
          </div>
        </div>
        {!isOver(job) && <Device />}
        {working && (
          <div className={styles.grow}>
            <div className={styles.label}>
              {t("jobs.working", { task: working.round.task, round: working.round.round })}
            </div>
            <Progress label={t("jobs.progress")} done={done} all={all} />
          </div>
        )}
        <div className={styles.actions}>
          {(job.held || job.released !== null || job.model !== null) && (
            <Link href={`/models/${job.job}`}>{t("jobs.results")}</Link>
          )}
          <Link href="/egress">{t("jobs.whatLeft")}</Link>
          {!isOver(job) && <Pause job={job} />}
          {!isOver(job) && <Stop job={job} />}
        </div>
      </div>
      {[...notes].map((note) => (
        <Notice key={note} weight="attention" title={t("jobs.note")}>
          <Engine>{note}</Engine>
        </Notice>
      ))}
    </Card>
  );
}

/** What large work runs on here, at present: of a run that has ended nobody can tell any more. */
function Device() {
  const { t } = useTranslation();
  const device = useAnswer("device", {});
  const why = device.data?.used === null && device.data.choice !== "cpu" ? device.data.reason : null;
  return (
    <div className={styles.device}>
      <div className={styles.label}>{t("jobs.device")}</div>
      <div className={styles.value}>{device.data ? (device.data.used ?? t("jobs.processor")) : "…"}</div>
      {why && (
        <div className={styles.label}>
          <Engine>{why}</Engine>
        </div>
      )}
      <FaultNotice fault={device.error} />
    </div>
  );
}

/** Sitting the rounds of this run out, and the way back: one button, so that whoever goes by keyboard stays where they are. */
function Pause({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [isAsking, setAsking] = useState(false);
  const pause = useAction("pause_job", () => setAsking(false));
  const isHeld = isPaused(job);
  const words = t(isHeld ? "jobs.goOn" : "jobs.pauseRun");
  return (
    <>
      <Link href={`/federations/${job.federation}`}>{t("jobs.pause")}</Link>
      {may("data_steward", "administrator") && (
        <Button icon={isHeld ? "link" : "pause"} onPress={() => setAsking(true)}>
          {words}
        </Button>
      )}
      <Confirm
        title={words}
        yes={words}
        {...(isHeld ? {} : { reason: t("approvals.reason") })}
        isOpen={isAsking}
        action={pause}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => pause.mutate({ job: job.job, reason: isHeld ? null : reason })}
      >
        <p>{t(isHeld ? "jobs.goOnHelp" : "jobs.pauseRunHelp")}</p>
      </Confirm>
    </>
  );
}

function Stop({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [isAsking, setAsking] = useState(false);
  const cancel = useAction("cancel_job", () => setAsking(false));
  return (
    <>
      {may("data_steward", "administrator") && (
        <Button kind="danger" icon="stop" onPress={() => setAsking(true)}>
          {t("jobs.stop")}
        </Button>
      )}
      <Confirm
        title={t("jobs.stop")}
        yes={t("jobs.stop")}
        isDangerous
        reason={t("jobs.stopReason")}
        isOpen={isAsking}
        action={cancel}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => cancel.mutate({ job: job.job, reason })}
      >
        <p>{t("jobs.stopHelp")}</p>
      </Confirm>
    </>
  );
}

function Rounds({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const why = (round: RoundView) => failure(round) ?? round.reason;
  return (
    <Card
      title={t("jobs.roundsTitle")}
      lead={t("jobs.roundsLead", { shown: count(job.rounds.length), all: count(job.rounds_in_all) })}
      isFlush
    >
      <Table
        label={t("jobs.roundsTitle")}
        items={job.rounds}
        id={(round) => `${round.round.task}.${round.round.epoch}.${round.round.round}.${round.round.attempt}`}
        columns={[
          { key: "task", name: t("jobs.task"), cell: (round) => round.round.task },
          { key: "round", name: t("jobs.round"), isNumber: true, cell: (round) => count(round.round.round) },
          {
            key: "attempt",
            name: t("jobs.attempt"),
            isNumber: true,
            cell: (round) => count(round.round.attempt),
          },
          { key: "state", name: t("jobs.state"), cell: (round) => <RoundBadge state={round.state} /> },
          { key: "at", name: t("jobs.at"), isWhole: true, cell: (round) => exactly(round.at) },
          {
            key: "why",
            name: t("jobs.why"),
            cell: (round) => {
              const words = why(round);
              return words === null ? null : <Engine>{words}</Engine>;
            },
          },
        ]}
      />
    </Card>
  );
}
