import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { named } from "../i18n/engine";
import { bytes, count, exactly } from "../i18n/format";
import { useAnswer, useEgress } from "../ipc/hooks";
import type { EgressView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { DigestChip } from "../parts/DigestChip";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import { LeavingBadge } from "../parts/states";
import { Table } from "../parts/Table";
import styles from "./EgressLog.module.css";

/** Everything that ever left, waits to leave or was withdrawn, with digests. */
export function EgressLog() {
  const { t } = useTranslation();
  const egress = useEgress();
  return (
    <Page title={t("egress.title")} lead={t("egress.lead")}>
      <Answered of={egress}>
        {({ pages }) => {
          const items = pages.flat();
          return (
            <Card isFlush>
              {items.length === 0 ? (
                <Empty icon="egress" title={t("egress.empty")}>
                  {t("egress.emptyHelp")}
                </Empty>
              ) : (
                <EgressTable items={items} />
              )}
            </Card>
          );
        }}
      </Answered>
      {egress.hasNextPage && (
        <div>
          <Button isPending={egress.isFetchingNextPage} onPress={() => void egress.fetchNextPage()}>
            {t("parts.more")}
          </Button>
        </div>
      )}
    </Page>
  );
}

/** When it was entered, when its first byte was let go, and when it came to its end. */
function Times({ of }: { of: EgressView }) {
  const { t } = useTranslation();
  const ended = of.state === "sent" ? "egress.received" : "egress.ended";
  return (
    <>
      <span className={styles.made}>{t("egress.made", { at: exactly(of.at) })}</span>
      {of.left !== null && <span className={styles.made}>{t("egress.left", { at: exactly(of.left) })}</span>}
      {of.ended !== null && <span className={styles.made}>{t(ended, { at: exactly(of.ended) })}</span>}
    </>
  );
}

function EgressTable({ items }: { items: EgressView[] }) {
  const { t } = useTranslation();
  const requests = useAnswer("requests", {});
  const memberships = useAnswer("memberships", {});
  const study = (id: string) => requests.data?.find((r) => r.study === id)?.title ?? t("egress.study");
  const to = (id: string) => memberships.data?.find((m) => m.federation === id)?.name ?? id;
  return (
    <Table
      label={t("egress.title")}
      items={items}
      id={(item) => `${item.digest} ${item.round.task} ${item.round.round} ${item.round.attempt}`}
      columns={[
        {
          key: "what",
          name: t("egress.what"),
          cell: (item) => (
            <div className={styles.what}>
              {t("egress.of", {
                kind: named("words.payload", item.kind),
                task: item.round.task,
                round: count(item.round.round),
              })}
              <Link href={`/jobs/${item.round.job}`} className={styles.study ?? ""}>
                {study(item.study)}
              </Link>
              <Times of={item} />
              <DigestChip digest={item.digest} of={t("egress.digest")} isShort />
            </div>
          ),
        },
        { key: "to", name: t("review.to"), cell: (item) => to(item.federation) },
        {
          key: "protection",
          name: t("egress.protection"),
          cell: (item) => (
            <>
              {named("words.protection", item.protection)}{" "}
              {item.public_data && <Badge tone="waits">{t("datasets.public")}</Badge>}
            </>
          ),
        },
        { key: "bytes", name: t("egress.size"), isNumber: true, cell: (item) => bytes(item.bytes) },
        { key: "state", name: t("egress.state"), cell: (item) => <LeavingBadge state={item.state} /> },
      ]}
    />
  );
}
