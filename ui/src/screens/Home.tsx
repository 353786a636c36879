import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { count, day, distance, moment } from "../i18n/format";
import { useAnswer, useJobs } from "../ipc/hooks";
import type { RequestView, Status } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { DecisionCard } from "../parts/DecisionCard";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import { LinkBadge } from "../parts/states";
import { ownLog } from "../shell/Header";
import { useSession } from "../shell/session";
import { Beginning } from "./Beginning";
import styles from "./Home.module.css";
import { PauseNotice } from "./PauseNotice";
import { isOpen } from "./Requests";
import { Running } from "./Running";

/** What waits for a person, what runs, and how the site is. */
export function Home() {
  const { t } = useTranslation();
  const { name } = useSession();
  const status = useAnswer("status", {});
  return (
    <Page title={t("home.title", { name })}>
      <Answered of={status}>
        {(data) => (
          <>
            <PauseNotice status={data} />
            <Beginning status={data} />
            <div className={styles.columns}>
              <div className={styles.wide}>
                <Decisions />
                <Running />
              </div>
              <Site status={data} />
            </div>
          </>
        )}
      </Answered>
    </Page>
  );
}

const ASKS = {
  received: "home.asksFirst",
  under_review: "home.asksFirst",
  partly_approved: "home.asksSecond",
} as const;

/** Everything that waits for a person of this site. */
function Decisions() {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  const proposals = useAnswer("proposals", {});
  const memberships = useAnswer("memberships", {});
  const jobs = useJobs();
  const open = (requests.data ?? []).filter(isOpen);
  const held = (jobs.data?.pages.flat() ?? []).filter((job) => job.held);
  const restored = (memberships.data ?? []).filter((m) => m.epoch_offered !== null);
  const all = open.length + held.length + restored.length + (proposals.data?.length ?? 0);
  const asks = (request: RequestView) => t(ASKS[request.state as keyof typeof ASKS] ?? "home.asksFirst");
  return (
    <Card title={t("home.decisions")}>
      {all === 0 && (
        <Empty icon="check" title={t("home.noDecisions")}>
          {t("home.noDecisionsHelp")}
        </Empty>
      )}
      {open.map((request) => (
        <DecisionCard
          key={request.study}
          icon="requests"
          title={request.title}
          to={`/requests/${request.study}`}
          asks={asks(request)}
        >
          {t("home.from", { requester: request.requester, at: moment(request.received) })}
        </DecisionCard>
      ))}
      {held.map((job) => (
        <DecisionCard
          key={job.job}
          icon="models"
          title={job.title}
          to={`/models/${job.job}`}
          asks={t("home.asksRelease")}
        />
      ))}
      {proposals.data?.map((proposal) => (
        <DecisionCard
          key={proposal.id}
          icon="settings"
          title={proposal.words}
          to="/settings/people"
          asks={t("home.asksChange", { name: proposal.by })}
        />
      ))}
      {restored.map((m) => (
        <DecisionCard
          key={m.federation}
          icon="federations"
          title={m.name}
          to={`/federations/${m.federation}`}
          asks={t("home.asksRestored")}
        />
      ))}
    </Card>
  );
}

/** Link, ledger, what waits to leave, and the next expiry. */
function Site({ status }: { status: Status }) {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  const active = (requests.data ?? []).filter((r) => r.state === "active" && r.expires !== null);
  const [next] = active.sort((a, b) => (a.expires ?? 0) - (b.expires ?? 0));
  const { ledger } = status;
  const own = ownLog(status);
  const settled = own.some((w) => w.settled);
  return (
    <Card title={t("home.site")}>
      <dl className={styles.facts}>
        <div>
          <dt>{t("home.link")}</dt>
          <dd>
            {status.memberships.length === 0
              ? t("shell.noFederation")
              : status.memberships.map((m) => (
                  <div key={m.federation} className={styles.line}>
                    <Link href={`/federations/${m.federation}`}>{m.name}</Link>
                    <LinkBadge link={m.link} isPaused={m.paused !== null} />
                  </div>
                ))}
          </dd>
        </div>
        <div>
          <dt>{t("home.ledger")}</dt>
          <dd>
            <Link href="/audit">{t("home.entries", { count: ledger.entries })}</Link>
            <div className={styles.note}>
              {t(
                own.every((w) => w.witnesses === 0)
                  ? "home.unwitnessed"
                  : settled
                    ? "home.settled"
                    : "home.unsettled",
              )}
            </div>
          </dd>
        </div>
        <div>
          <dt>{t("home.outbox")}</dt>
          <dd>
            <Link href="/egress">{t("home.waits", { count: status.outbox })}</Link>
          </dd>
        </div>
        <div>
          <dt>{t("home.expiry")}</dt>
          <dd>
            {next?.expires ? (
              <>
                <Link href="/approvals">{next.title}</Link>
                <div className={styles.note}>
                  {t("approvals.day", {
                    day: day(next.expires),
                    distance: distance(next.expires, status.at),
                  })}
                </div>
              </>
            ) : (
              t("home.noExpiry")
            )}
          </dd>
        </div>
        <div>
          <dt>{t("home.policy")}</dt>
          <dd>
            <Link href="/settings/policy">{status.policy}</Link>
          </dd>
        </div>
        {status.working > 0 && (
          <div>
            <dt>{t("home.working")}</dt>
            <dd>{count(status.working)}</dd>
          </div>
        )}
      </dl>
    </Card>
  );
}
