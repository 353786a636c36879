import { useState } from "react";
import { useTranslation } from "react-i18next";
import { missing } from "../charts/curves";
import { Engine } from "../i18n/engine";
import { count, percent } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { ColumnProfile, ColumnView, DatasetView, ProfileView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge } from "../parts/Badge";
import { Card } from "../parts/Card";
import { Notice } from "../parts/Notice";
import { Picker } from "../parts/Picker";
import { Table } from "../parts/Table";
import { ColumnFigure } from "./ColumnFigure";
import { kindWords } from "./kinds";

interface Props {
  dataset: DatasetView;
  mayLook: boolean;
}

/** Columns with what the identifier scan found, and for those who may look, what is in them. */
export function Columns({ dataset, mayLook }: Props) {
  const { t } = useTranslation();
  const profile = useAnswer("profile", { dataset: dataset.id }, mayLook);
  if (!mayLook) {
    return (
      <>
        <Notice>{t("datasets.noLook")}</Notice>
        <Card isFlush>
          <ColumnTable columns={dataset.columns} profile={null} />
        </Card>
      </>
    );
  }
  return <Answered of={profile}>{(data) => <Profiled data={data} />}</Answered>;
}

function Profiled({ data: { dataset, profile } }: { data: ProfileView }) {
  const { t } = useTranslation();
  const [chosen, setChosen] = useState<string | null>(null);
  const drawn = profile.columns.filter((column) => column.number !== null || column.levels.length > 0);
  const shown = drawn.find((column) => column.name === chosen) ?? drawn[0];
  return (
    <>
      <Notice>{t(profile.suppressed ? "datasets.suppressed" : "datasets.full")}</Notice>
      {shown && (
        <Card title={t("datasets.distribution")}>
          <Picker
            label={t("datasets.column")}
            options={drawn.map((column) => ({ value: column.name, label: column.name }))}
            value={shown.name}
            onChange={setChosen}
          />
          <ColumnFigure column={shown} />
        </Card>
      )}
      <Card isFlush>
        <ColumnTable columns={dataset.columns} profile={profile.columns} />
      </Card>
    </>
  );
}

function ColumnTable({ columns, profile }: { columns: ColumnView[]; profile: ColumnProfile[] | null }) {
  const { t } = useTranslation();
  const of = (name: string) => profile?.find((column) => column.name === name);
  const gaps = (name: string) => {
    const column = of(name);
    const part = column ? missing(column) : null;
    return part === null ? "–" : percent(part, 1);
  };
  return (
    <Table
      label={t("datasets.profile")}
      items={columns}
      id={(column) => column.name}
      columns={[
        { key: "name", name: t("datasets.column"), cell: (column) => <code>{column.name}</code> },
        { key: "kind", name: t("datasets.type"), cell: (column) => kindWords(t, column.kind) },
        {
          key: "present",
          name: t("models.present"),
          isNumber: true,
          cell: (column) => (of(column.name) ? count(of(column.name)?.present ?? 0) : "–"),
        },
        { key: "missing", name: t("datasets.missing"), isNumber: true, cell: (column) => gaps(column.name) },
        {
          key: "findings",
          name: t("datasets.findings"),
          cell: (column) =>
            column.masked ? (
              <Badge tone="held">{t("datasets.masked")}</Badge>
            ) : (
              column.findings.map((finding) => (
                <div key={finding}>
                  <Engine>{finding}</Engine>
                </div>
              ))
            ),
        },
      ]}
    />
  );
}
