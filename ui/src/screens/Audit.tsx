import { useQueryClient } from "@tanstack/react-query";
import { useCallback, useMemo, useState } from "react";
import { Button as Base } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useLocation } from "wouter";
import { useHistoryState } from "wouter/use-browser-location";
import { named } from "../i18n/engine";
import { bytes, count, exactly } from "../i18n/format";
import { useAnswer, useAudit } from "../ipc/hooks";
import type { AuditLine } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge, type Tone } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { LongList } from "../parts/LongList";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { useMe } from "../shell/session";
import styles from "./Audit.module.css";
import { Actor, AuditEntry, Gist } from "./AuditEntry";
import { AuditExport } from "./AuditExport";
import { AuditFilters } from "./AuditFilters";
import { type AuditFilter, kept, queryOf, tidied } from "./auditFilter";
import { Chain } from "./Chain";
import { Retention } from "./Retention";

/** What went as it should is not marked. */
const OUTCOME: Record<string, Tone> = { refused: "ended", failed: "bad" };

/** Everything that happened here, newest first, whether the log is whole, and who else saw it. */
export function Audit() {
  const { t } = useTranslation();
  const { inside } = useMe();
  return (
    <Page title={t("audit.title")} lead={t("audit.lead")}>
      {inside() ? (
        <>
          <Chain />
          <Log />
          <AuditExport />
          <Retention />
        </>
      ) : (
        <Notice>{t("audit.inside")}</Notice>
      )}
    </Page>
  );
}

/** The entries that a filter lets through. The filter is kept with the place in the history, so that *back* undoes it. */
function Log() {
  const { t } = useTranslation();
  const state = useHistoryState<unknown>();
  const [, go] = useLocation();
  const client = useQueryClient();
  const filter = useMemo(() => kept(state), [state]);
  const query = useMemo(() => queryOf(filter), [filter]);
  const isFiltered = Object.keys(filter).length > 0;
  const pages = useAudit(query);
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = pages;
  const more = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage]);
  const status = useAnswer("status", {});
  const newer =
    (status.data?.ledger.entries ?? 0) - (pages.data?.pages[0]?.total ?? Number.POSITIVE_INFINITY);
  function show(wanted: AuditFilter) {
    const tidy = tidied(wanted);
    // The same once more would make a step back that changes nothing.
    if (JSON.stringify(tidy) !== JSON.stringify(filter)) go("/audit", { state: tidy });
  }
  return (
    <Card
      title={t("audit.entries")}
      lead={pages.data && t("audit.total", { count: pages.data.pages[0]?.total ?? 0 })}
      beside={
        newer > 0 && (
          <Button icon="down" onPress={() => void client.resetQueries({ queryKey: ["entries"] })}>
            {/* How many of them a filter lets through, only another look tells. */}
            {t(isFiltered ? "audit.again" : "audit.newer", { count: newer })}
          </Button>
        )
      }
      isFlush
    >
      <section className={styles.filter} aria-label={t("audit.filters")}>
        <AuditFilters shown={filter} onShow={show} />
      </section>
      <Answered of={pages}>
        {(data) => {
          const entries = data.pages.flatMap((page) => page.entries);
          return entries.length === 0 && !hasNextPage ? (
            <Empty icon="audit" title={t("audit.nothing")}>
              {t("audit.nothingHelp")}
            </Empty>
          ) : (
            // How many a filter lets through, nobody has counted.
            <Entries
              entries={entries}
              total={isFiltered ? null : (data.pages[0]?.total ?? 0)}
              onEnd={more}
              onOnly={show}
            />
          );
        }}
      </Answered>
    </Card>
  );
}

interface EntriesProps {
  entries: AuditLine[];
  total: number | null;
  onEnd: () => void;
  onOnly: (filter: AuditFilter) => void;
}

function Entries({ entries, total, onEnd, onOnly }: EntriesProps) {
  const [opened, setOpened] = useState<AuditLine | null>(null);
  function only(filter: AuditFilter) {
    setOpened(null);
    onOnly(filter);
  }
  return (
    <>
      <List entries={entries} total={total} onEnd={onEnd} onOpen={setOpened} />
      {opened && <AuditEntry of={opened} onClose={() => setOpened(null)} onOnly={only} />}
    </>
  );
}

interface ListProps extends Omit<EntriesProps, "onOnly"> {
  onOpen: (entry: AuditLine) => void;
}

function List({ entries, total, onEnd, onOpen }: ListProps) {
  const { t } = useTranslation();
  return (
    <LongList
      label={t("audit.entries")}
      items={entries}
      id={(entry) => entry.sequence}
      total={total}
      onEnd={onEnd}
      columns={[
        { key: "number", name: t("audit.number"), width: "64px", isNumber: true, cell: (e) => e.sequence },
        {
          key: "at",
          name: t("audit.at"),
          width: "112px",
          cell: (e) => <span className={styles.when}>{exactly(e.at)}</span>,
        },
        {
          key: "who",
          name: t("audit.who"),
          width: "minmax(0, 0.9fr)",
          cell: (e) => <Actor words={e.actor} />,
        },
        {
          key: "what",
          name: t("audit.what"),
          width: "minmax(0, 1.2fr)",
          cell: (e) => (
            <>
              <Base
                className={styles.open ?? ""}
                aria-label={t("audit.openEntry", {
                  what: named("words.action", e.action),
                  number: count(e.sequence),
                })}
                onPress={() => onOpen(e)}
              >
                {named("words.action", e.action)}
              </Base>
              {e.outcome === "success" ? (
                <span className="hidden">{named("words.entry", e.outcome)}</span>
              ) : (
                <Badge tone={OUTCOME[e.outcome] ?? "calm"}>{named("words.entry", e.outcome)}</Badge>
              )}
            </>
          ),
        },
        {
          key: "detail",
          name: t("audit.detail"),
          width: "minmax(0, 2.2fr)",
          cell: (e) => (
            <div className={styles.detail}>
              <Gist of={e} />
            </div>
          ),
        },
        {
          key: "bytes",
          name: t("audit.bytes"),
          width: "64px",
          isNumber: true,
          cell: (e) => (e.bytes === null ? "" : bytes(e.bytes)),
        },
      ]}
    />
  );
}
