import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { Engine } from "../i18n/engine";
import { count, day, distance, moment } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { RequestState, RequestView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import facts from "../parts/ShortFacts.module.css";
import { RequestBadge } from "../parts/states";
import { Table } from "../parts/Table";
import styles from "./Approvals.module.css";
import { Verdicts } from "./Verdicts";

/** How long before its end an approval is shown as expiring, in milliseconds. */
export const SOON_MS = 14 * 24 * 60 * 60 * 1_000;

const IN_FORCE: RequestState[] = ["active", "suspended"];
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
          const inForce = all.filter((r) => IN_FORCE.includes(r.state));
          const over = all.filter((r) => OVER.includes(r.state));
          return (
            <>
              {inForce.length === 0 ? (
                <Card>
                  <Empty icon="approvals" title={t("approvals.empty")}>
                    {t("approvals.emptyHelp")}
                  </Empty>
                </Card>
              ) : (
                inForce.map((request) => <Approval key={request.study} request={request} now={now} />)
              )}
              {over.length > 0 && <Over requests={over} />}
            </>
          );
        }}
      </Answered>
    </Page>
  );
}

function Approval({ request, now }: { request: RequestView; now: number }) {
  const { t } = useTranslation();
  const { expires, runs } = request;
  const endsSoon = expires !== null && expires - now < SOON_MS;
  return (
    <Card
      title={request.title}
      lead={t("approvals.for", { requester: request.requester, federation: request.federation_name })}
      beside={<RequestBadge state={request.state} />}
    >
      <dl className={facts.facts}>
        {expires !== null && (
          <div className={endsSoon ? facts.soon : undefined}>
            <dt>{t(endsSoon ? "approvals.endsSoon" : "approvals.until")}</dt>
            <dd>{t("approvals.day", { day: day(expires), distance: distance(expires, now) })}</dd>
          </div>
        )}
        {runs !== null && (
          <div>
            <dt>{t("approvals.runs")}</dt>
            <dd>{t("approvals.runsUsed", { used: count(runs[0]), all: count(runs[1]) })}</dd>
          </div>
        )}
        {request.reason !== null && (
          <div>
            <dt>{t("approvals.why")}</dt>
            <dd>
              <Engine>{request.reason}</Engine>
            </dd>
          </div>
        )}
      </dl>
      <div className={styles.foot}>
        <Link href={`/requests/${request.study}`}>{t("approvals.read")}</Link>
        <Verdicts study={request.study} state={request.state} />
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
            cell: (request) => request.reason && <Engine>{request.reason}</Engine>,
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
