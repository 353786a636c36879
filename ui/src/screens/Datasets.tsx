import { useTranslation } from "react-i18next";
import { Link, useLocation } from "wouter";
import { count, day } from "../i18n/format";
import { useAnswer, useReading } from "../ipc/hooks";
import type { DatasetView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { Page } from "../parts/Page";
import { Table } from "../parts/Table";
import { useMe } from "../shell/session";
import { OptOuts } from "./OptOuts";
import { UnderReading } from "./UnderReading";

/** Datasets of this site, and for data stewards the ways to register one and to import opt-outs. */
export function Datasets() {
  const { t } = useTranslation();
  const [, go] = useLocation();
  const { may } = useMe();
  const datasets = useAnswer("datasets", {});
  const isSteward = may("data_steward");
  return (
    <Page
      title={t("datasets.title")}
      lead={t("datasets.lead")}
      beside={
        isSteward && (
          <Button kind="primary" icon="plus" onPress={() => go("/datasets/new")}>
            {t("register.title")}
          </Button>
        )
      }
    >
      <Card isFlush>
        <Answered of={datasets}>
          {(all) =>
            all.length === 0 ? (
              <Empty icon="datasets" title={t("datasets.empty")}>
                {t("datasets.emptyHelp")}
              </Empty>
            ) : (
              <DatasetTable datasets={all} />
            )
          }
        </Answered>
      </Card>
      {isSteward && <StillRead />}
      {isSteward && <OptOuts />}
    </Page>
  );
}

/** What goes on for a data steward who has left the wizard. */
function StillRead() {
  const { t } = useTranslation();
  const reading = useReading(false).data ?? null;
  if (reading === null) return null;
  return (
    <Card>
      <UnderReading words={t("register.freezing")} isOn />
    </Card>
  );
}

function DatasetTable({ datasets }: { datasets: DatasetView[] }) {
  const { t } = useTranslation();
  const optedOut = (d: DatasetView) => d.subjects - d.subjects_left;
  return (
    <Table
      label={t("datasets.title")}
      items={datasets}
      id={(dataset) => dataset.id}
      columns={[
        {
          key: "name",
          name: t("datasets.name"),
          cell: (d) => (
            <>
              <Link href={`/datasets/${d.id}`}>{d.name}</Link>{" "}
              {d.public && <Badge tone="waits">{t("datasets.public")}</Badge>}
            </>
          ),
        },
        { key: "version", name: t("datasets.version"), isNumber: true, cell: (d) => count(d.version) },
        {
          key: "subjects",
          name: t("datasets.patients"),
          isNumber: true,
          cell: (d) => count(d.subjects_left),
        },
        { key: "out", name: t("datasets.optedOut"), isNumber: true, cell: (d) => count(optedOut(d)) },
        { key: "rows", name: t("datasets.rows"), isNumber: true, cell: (d) => count(d.rows) },
        { key: "columns", name: t("datasets.columns"), isNumber: true, cell: (d) => count(d.columns.length) },
        { key: "at", name: t("datasets.frozen"), isWhole: true, cell: (d) => day(d.at) },
      ]}
    />
  );
}
