import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { Engine } from "../i18n/engine";
import { count, day, distance, moment } from "../i18n/format";
import { useAnswer, useJobs } from "../ipc/hooks";
import type { RequestView, Status } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge } from "../parts/Badge";
import { Card } from "../parts/Card";
import { DecisionCard } from "../parts/DecisionCard";
import { Empty } from "../parts/Empty";
import { joined } from "../parts/Membership";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { LinkBadge } from "../parts/states";
import { ownLog } from "../shell/Header";
import { useMe, useSession } from "../shell/session";
import { Beginning } from "./Beginning";
import { Budgets } from "./Budgets";
import styles from "./Home.module.css";
import { PauseNotice } from "./PauseNotice";
import { isOpen } from "./Requests";
import { Running } from "./Running";
import { UpdateNotice } from "./UpdateNotice";

/** What waits for a person, what runs, and how the site is. */
export function Home() {
  const { t } = useTranslation();
  const { name } = useSession();
  const { inside } = useMe();
  const status = useAnswer("status", {});
  const runsHere = useAnswer("about", {}).data?.engine === "here";
  // A study that waits for a decision comes before what is left to do here once.
  const asked = (useAnswer("requests", {}).data ?? []).some(isOpen);
  return (
    <Page title={t("home.title", { name })}>
      <Answered of={status}>
        {(data) => (
          <>
            {runsHere && <Notice>{t("settings.runsHere")}</Notice>}
            <PauseNotice status={data} />
            <UpdateNotice />
            {inside() && !asked && <Beginning status={data} />}
            <div className={styles.columns}>
              <div className={styles.wide}>
                <Decisions />
                {inside() && <Running />}
                {inside() && <Budgets />}
              </div>
              <Site status={data} />
            </div>
            {inside() && asked && <Beginning status={data} />}
          </>
        )}
      </Answered>
    </Page>
  );
}

/** Everything that waits for a person of this site. */
function Decisions() {
  const { t } = useTranslation();
  const { inside, may } = useMe();
  const requests = useAnswer("requests", {});
  const proposals = useAnswer("proposals", {});
  const memberships = useAnswer("memberships", {});
  const jobs = useJobs(inside());
  // All but requests is for people of this organisation; of changes the engine names others only what they may second.
  const own = <T,>(items: T[] | undefined): T[] => (inside() && items) || [];
  const open = (requests.data ?? []).filter(isOpen);
  const held = own(jobs.data?.pages.flat()).filter((job) => job.held);
  const restored = own(memberships.data).filter((m) => m.epoch_offered !== null);
  const changes = proposals.data ?? [];
  const all = open.length + held.length + restored.length + changes.length;
  // Who cannot sign is told who can.
  function asks({ state }: RequestView) {
    if (state === "partly_approved")
      return t(may("data_access_approver") ? "home.asksSecond" : "home.asksSecondOthers");
    return t(may("data_steward") ? "home.asksFirst" : "home.asksFirstOthers");
  }
  const isReleaser = inside("data_steward", "data_access_approver");
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
          asks={t(isReleaser ? "home.asksRelease" : "home.asksReleaseOthers")}
        />
      ))}
      {changes.map((proposal) => (
        <DecisionCard
          key={proposal.id}
          icon="settings"
          title={<Engine>{proposal.words}</Engine>}
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
  const { inside } = useMe();
  const requests = useAnswer("requests", {});
  const active = (requests.data ?? []).flatMap(({ title, in_force }) =>
    in_force?.state === "active" ? [{ title, expires: in_force.expires }] : [],
  );
  const [next] = active.sort((a, b) => a.expires - b.expires);
  const { ledger } = status;
  const own = ownLog(status);
  const settled = own.some((w) => w.settled) ? "home.settled" : "home.unsettled";
  const witnessed = own.every((w) => w.witnesses === 0) ? "home.unwitnessed" : settled;
  const memberships = joined(status.memberships);
  const waits = t("home.waits", { count: status.outbox });
  const entries = t("home.entries", { count: ledger.entries });
  return (
    <Card title={t("home.site")}>
      <dl className={styles.facts}>
        <div>
          <dt>{t("home.link")}</dt>
          <dd>
            {memberships.length === 0
              ? t("shell.noFederation")
              : memberships.map((m) => (
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
            {inside() ? <Link href="/audit">{entries}</Link> : entries}
            {ledger.finding && (
              <div>
                <Badge tone="bad">{t("home.altered")}</Badge>
              </div>
            )}
            <div className={styles.note}>{t(ledger.finding ? "home.alteredHelp" : witnessed)}</div>
          </dd>
        </div>
        <div>
          <dt>{t("home.outbox")}</dt>
          <dd>{inside() ? <Link href="/egress">{waits}</Link> : waits}</dd>
        </div>
        <div>
          <dt>{t("home.expiry")}</dt>
          <dd>
            {next ? (
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
