import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { bytes, moment } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { DryRunView, RequestState, Review } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Progress } from "../parts/Progress";
import { useMe } from "../shell/session";
import { DryMessages } from "./DryMessages";
import forms from "./Forms.module.css";

/** States in which a request waits for a decision. */
const OPEN: RequestState[] = ["received", "under_review", "partly_approved"];

interface Props {
  review: Review;
  dataset: string | null;
}

/** What this site would send, tried on its own machine before anybody signs. Nothing of it leaves. */
export function DryRun({ review, dataset }: Props) {
  const { t } = useTranslation();
  const { maySee } = useMe();
  const query = useAnswer("dry_run", { study: review.study }, maySee);
  const isOpen = OPEN.includes(review.state);
  if (!maySee || (!isOpen && !query.data)) return null;
  return (
    <Card title={t("dryRun.title")} lead={t("dryRun.lead")}>
      <Answered of={query}>
        {(tried) => (
          <>
            {tried !== null && <HowFar tried={tried} />}
            <Buttons review={review} dataset={dataset} tried={tried} isOpen={isOpen} />
            {tried !== null && <DryMessages tried={tried} />}
          </>
        )}
      </Answered>
    </Card>
  );
}

const isUnderWay = (tried: DryRunView) => tried.state === "waiting" || tried.state === "running";

/** In what state it is, as it changes. */
function HowFar({ tried }: { tried: DryRunView }) {
  const { t } = useTranslation();
  const [done, all] = tried.progress ?? [0, 0];
  const task = tried.messages.find((message) => message.state === "working")?.task ?? "";
  return (
    <>
      <div role="status" className={forms.prose}>
        {tried.state === "waiting" && waits(t, tried)}
        {tried.state === "running" && t(tried.attack ? "attack.running" : "dryRun.running", { task })}
        {tried.state === "done" &&
          t("dryRun.done", {
            count: tried.messages.filter((message) => message.made !== null).length,
            size: bytes(tried.bytes),
            dataset: tried.dataset_name,
            name: tried.by,
            at: moment(tried.at),
          })}
        {(tried.state === "stopped" || tried.state === "failed") && (
          <Notice
            weight="attention"
            title={t(tried.state === "stopped" ? "dryRun.stopped" : "dryRun.failed")}
          >
            <Engine>{tried.reason ?? ""}</Engine>
          </Notice>
        )}
      </div>
      {tried.progress !== null && <Progress label={t("dryRun.progress")} done={done} all={all} />}
      {tried.note !== null && (
        <p className={forms.small}>
          <Engine>{tried.note}</Engine>
        </p>
      )}
    </>
  );
}

type T = ReturnType<typeof useTranslation>["t"];

function waits(t: T, { waits }: DryRunView): string {
  if (waits === null) return t("dryRun.waits");
  if (waits === "rounds") return t("dryRun.waitsRounds");
  return t("dryRun.waitsQuiet", { until: moment(waits.quiet_hours.until) });
}

interface ButtonsProps extends Props {
  tried: DryRunView | null;
  isOpen: boolean;
}

function Buttons({ review, dataset, tried, isOpen }: ButtonsProps) {
  const { t } = useTranslation();
  const start = useAction("start_dry_run");
  const stop = useAction("stop_dry_run");
  const { study } = review;
  const runs = tried !== null && isUnderWay(tried);
  return (
    <>
      {isOpen && !runs && !review.approvable && <p className={forms.quiet}>{t("dryRun.blocked")}</p>}
      {isOpen && !runs && <p className={forms.prose}>{t("attack.lead")}</p>}
      <div className={forms.actions}>
        {isOpen && !runs && (
          <>
            <Button
              isPending={start.isPending && !start.variables?.attack}
              isDisabled={!review.approvable}
              onPress={() => start.mutate({ study, dataset, attack: false })}
            >
              {t(tried === null ? "dryRun.start" : "dryRun.again")}
            </Button>
            <Button
              kind="quiet"
              isPending={start.isPending && start.variables?.attack === true}
              isDisabled={!review.approvable}
              onPress={() => start.mutate({ study, dataset, attack: true })}
            >
              {t("attack.start")}
            </Button>
          </>
        )}
        {tried !== null && (
          <Button kind="quiet" isPending={stop.isPending} onPress={() => stop.mutate({ study })}>
            {t(runs ? "dryRun.stop" : "dryRun.forget")}
          </Button>
        )}
      </div>
      <FaultNotice fault={start.error ?? stop.error} />
    </>
  );
}
