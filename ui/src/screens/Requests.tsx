import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { moment } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { RequestState, RequestView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { Choice } from "../parts/Choice";
import { Empty } from "../parts/Empty";
import { Name } from "../parts/Name";
import { Page } from "../parts/Page";
import { RequestBadge } from "../parts/states";
import { Table } from "../parts/Table";

const OPEN: RequestState[] = ["received", "under_review", "partly_approved"];

/** Whether a request waits for people of this site. */
export const isOpen = (request: RequestView) => OPEN.includes(request.state);

/** Studies that were offered to this site, newest first; those that wait are what one comes here for. */
export function Requests() {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  const [shown, setShown] = useState<"open" | "all">("open");
  return (
    <Page title={t("requests.title")} lead={t("requests.lead")}>
      <Answered of={requests}>
        {(all) => (
          <>
            <Choice
              label={t("requests.which")}
              isLabelHidden
              isRow
              value={shown}
              onChange={setShown}
              options={[
                { value: "open", label: t("requests.open", { count: all.filter(isOpen).length }) },
                { value: "all", label: t("requests.all", { count: all.length }) },
              ]}
            />
            <Card isFlush>
              <RequestTable requests={shown === "all" ? all : all.filter(isOpen)} hasAny={all.length > 0} />
            </Card>
          </>
        )}
      </Answered>
    </Page>
  );
}

function RequestTable({ requests, hasAny }: { requests: RequestView[]; hasAny: boolean }) {
  const { t } = useTranslation();
  if (requests.length === 0) {
    return (
      <Empty icon="requests" title={t(hasAny ? "requests.noneOpen" : "requests.empty")}>
        {t(hasAny ? "requests.noneOpenHelp" : "requests.emptyHelp")}
      </Empty>
    );
  }
  return (
    <Table
      label={t("requests.title")}
      items={requests}
      id={(request) => request.study}
      columns={[
        {
          key: "study",
          name: t("requests.study"),
          cell: (request) => (
            <Link href={`/requests/${request.study}`}>
              <Name of="study">{request.title}</Name>
            </Link>
          ),
        },
        {
          key: "requester",
          name: t("requests.requester"),
          cell: (request) => <Name of="person">{request.requester}</Name>,
        },
        { key: "federation", name: t("requests.federation"), cell: (request) => request.federation_name },
        {
          key: "received",
          name: t("requests.received"),
          isWhole: true,
          cell: (request) => moment(request.received),
        },
        {
          key: "state",
          name: t("requests.state"),
          cell: (request) => <RequestBadge state={request.state} />,
        },
      ]}
    />
  );
}
