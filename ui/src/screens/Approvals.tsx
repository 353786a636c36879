import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { count, day, distance, moment } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { InForce, RequestState, RequestView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import { Reason } from "../parts/Reason";
import facts from "../parts/ShortFacts.module.css";
import { RequestBadge } from "../parts/states";
import { Table } from "../parts/Table";
import styles from "./Approvals.module.css";
import { Verdicts } from "./Verdicts";

/** How long before its end an approval is shown as expiring, in milliseconds. */
export const SOON_MS = 14 * 24 * 60 * 60 * 1_000;

const OVER: RequestState[] = ["revoked", "expired", "refused", "withdrawn"];

/** What this site allowed: in force, about to end, and over. */
export function Approvals() {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  const status = useAnswer("status", {});
  const now = status.data?.at ?? 0;
  return (
    <Page title={t("approvals.title")} lead={t("approvals.lead")}>
      <Answered of={requests}>
        {(all) => {
          const over = all.filter((r) => r.in_force === null && OVER.includes(r.state));
          return (
            <>
              {all.every((r) => r.in_force === null) ? (
                <Card>
                  <Empty icon="approvals" title={t("approvals.empty")}>
                    {t("approvals.emptyHelp")}
                  </Empty>
                </Card>
              ) : (
                all.map(
                  (r) => r.in_force && <Approval key={r.study} request={r} inForce={r.in_force} now={now} />,
                )
              )}
              {over.length > 0 && <Over requests={over} />}
            </>
          );
        }}
      </Answered>
    </Page>
  );
}

interface ApprovalProps {
  request: RequestView;
  inForce: InForce;
  now: number;
}

/** One in force; the request itself may be about a further one by now. */
function Approval({ request, inForce, now }: ApprovalProps) {
  const { t } = useTranslation();
  const { state, expires, runs, reason } = inForce;
  const endsSoon = expires - now < SOON_MS;
  return (
    <Card
      title={request.title}
      lead={t("approvals.for", { requester: request.requester, federation: request.federation_name })}
      beside={<RequestBadge state={state} />}
    >
      <dl className={facts.facts}>
        <div className={endsSoon ? facts.soon : undefined}>
          <dt>{t(endsSoon ? "approvals.endsSoon" : "approvals.until")}</dt>
          <dd>{t("approvals.day", { day: day(expires), distance: distance(expires, now) })}</dd>
        </div>
        <div>
          <dt>{t("approvals.runs")}</dt>
          <dd>{t("approvals.runsUsed", { used: count(runs[0]), all: count(runs[1]) })}</dd>
        </div>
        {reason !== null && (
          <div>
            <dt>{t("approvals.why")}</dt>
            <dd>
              <Reason>{reason}</Reason>
            </dd>
          </div>
        )}
      </dl>
      <div className={styles.foot}>
        <Link href={`/requests/${request.study}`}>{t("approvals.read")}</Link>
        <Verdicts study={request.study} inForce={inForce} />
      </div>
    </Card>
  );
}

function Over({ requests }: { requests: RequestView[] }) {
  const { t } = useTranslation();
  return (
    <Card title={t("approvals.over")} isFlush>
      <Table
        label={t("approvals.over")}
        items={requests}
        id={(request) => request.study}
        columns={[
          {
            key: "study",
            name: t("requests.study"),
            cell: (request) => <Link href={`/requests/${request.study}`}>{request.title}</Link>,
          },
          {
            key: "state",
            name: t("requests.state"),
            cell: (request) => <RequestBadge state={request.state} />,
          },
          {
            key: "reason",
            name: t("approvals.why"),
            cell: (request) => request.reason && <Reason>{request.reason}</Reason>,
          },
          {
            key: "received",
            name: t("requests.received"),
            isWhole: true,
            cell: (request) => moment(request.received),
          },
        ]}
      />
    </Card>
  );
}
