import { useQueryClient } from "@tanstack/react-query";
import { useCallback, useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { Engine, named } from "../i18n/engine";
import { bytes, exactly } from "../i18n/format";
import { useAnswer, useAudit } from "../ipc/hooks";
import type { AuditLine } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge, type Tone } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Field } from "../parts/Field";
import { LongList } from "../parts/LongList";
import { Page } from "../parts/Page";
import styles from "./Audit.module.css";
import { Chain } from "./Chain";

/** What went as it should is not marked. */
const OUTCOME: Record<string, Tone> = { refused: "ended", failed: "bad" };

/** Everything that happened here, newest first, whether the log is whole, and who else saw it. */
export function Audit() {
  const { t } = useTranslation();
  const [from, setFrom] = useState<number | null>(null);
  const pages = useAudit(from);
  const { hasNextPage, isFetchingNextPage, fetchNextPage } = pages;
  const more = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage]);
  const status = useAnswer("status", {});
  const newer =
    (status.data?.ledger.entries ?? 0) - (pages.data?.pages[0]?.total ?? Number.POSITIVE_INFINITY);
  const client = useQueryClient();
  return (
    <Page title={t("audit.title")} lead={t("audit.lead")}>
      <Chain />
      <Card
        title={t("audit.entries")}
        lead={pages.data && t("audit.total", { count: pages.data.pages[0]?.total ?? 0 })}
        beside={
          <>
            {newer > 0 && from === null && (
              <Button icon="down" onPress={() => void client.resetQueries({ queryKey: ["entries"] })}>
                {t("audit.newer", { count: newer })}
              </Button>
            )}
            <From onFrom={setFrom} />
          </>
        }
        isFlush
      >
        <Answered of={pages}>
          {(data) => {
            const entries = data.pages.flatMap((page) => page.entries);
            const total = Math.min(
              data.pages[0]?.total ?? 0,
              from === null ? Number.POSITIVE_INFINITY : from + 1,
            );
            return <Entries entries={entries} total={total} onEnd={more} />;
          }}
        </Answered>
      </Card>
    </Page>
  );
}

/** Begins the list at an entry's number: the only filter that the engine's query has. */
function From({ onFrom }: { onFrom: (from: number | null) => void }) {
  const { t } = useTranslation();
  const [text, setText] = useState("");
  const number = Number(text);
  return (
    <Form
      className={styles.from ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        onFrom(text.trim() !== "" && Number.isInteger(number) && number >= 0 ? number : null);
      }}
    >
      <Field label={t("audit.from")} name="from" value={text} onChange={setText} isOptional />
      <Button type="submit">{t("audit.go")}</Button>
    </Form>
  );
}

const COORDINATOR = /^coordinator (\w+)$/;

/** Who did it; a coordinator by its federation's name. */
function Actor({ words }: { words: string }) {
  const { t } = useTranslation();
  const memberships = useAnswer("memberships", {});
  const id = COORDINATOR.exec(words)?.[1];
  const known = memberships.data?.find((m) => m.federation === id);
  return known ? t("audit.coordinator", { name: known.name }) : <Engine>{words}</Engine>;
}

function Entries({ entries, total, onEnd }: { entries: AuditLine[]; total: number; onEnd: () => void }) {
  const { t } = useTranslation();
  return (
    <LongList
      label={t("audit.entries")}
      items={entries}
      id={(entry) => entry.sequence}
      total={total}
      onEnd={onEnd}
      columns={[
        { key: "number", name: t("audit.number"), width: "52px", isNumber: true, cell: (e) => e.sequence },
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
              <div className={styles.action}>{named("words.action", e.action)}</div>
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
            <span className={styles.detail}>
              <Engine>{e.detail}</Engine>
            </span>
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
