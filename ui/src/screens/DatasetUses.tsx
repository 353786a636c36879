import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { bytes, count, day } from "../i18n/format";
import { useAnswer } from "../ipc/hooks";
import type { DatasetUse } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Card } from "../parts/Card";
import { Empty } from "../parts/Empty";
import { ApprovalBadge } from "../parts/states";
import { Table } from "../parts/Table";

/** Which studies a dataset was approved for, since when and until when, and what left of it. */
export function DatasetUses({ dataset }: { dataset: string }) {
  const { t } = useTranslation();
  const uses = useAnswer("dataset_uses", { dataset });
  const sum = (of: (use: DatasetUse) => number) => (uses.data ?? []).reduce((all, use) => all + of(use), 0);
  return (
    <Card
      title={t("datasets.uses")}
      lead={t("datasets.usesLead")}
      beside={<Link href="/egress">{t("datasets.useEgress")}</Link>}
      isFlush
    >
      <Answered of={uses}>
        {(all) =>
          all.length === 0 ? (
            <Empty icon="requests" title={t("datasets.usesEmpty")}>
              {t("datasets.usesEmptyHelp")}
            </Empty>
          ) : (
            <Uses
              uses={all}
              total={t("datasets.useTotal", {
                count: sum((use) => use.runs),
                bytes: bytes(sum((use) => use.bytes_left)),
              })}
            />
          )
        }
      </Answered>
    </Card>
  );
}

function Uses({ uses, total }: { uses: DatasetUse[]; total: string }) {
  const { t } = useTranslation();
  return (
    <Table
      label={t("datasets.uses")}
      items={uses}
      // A study that was approved again stands here twice.
      id={(use) => `${use.study} ${use.at}`}
      columns={[
        {
          key: "study",
          name: t("datasets.useStudy"),
          cell: (use) => <Link href={`/requests/${use.study}`}>{use.title}</Link>,
        },
        { key: "federation", name: t("datasets.useFederation"), cell: (use) => use.federation_name },
        { key: "state", name: t("datasets.useState"), cell: (use) => <ApprovalBadge state={use.state} /> },
        { key: "from", name: t("datasets.useFrom"), isWhole: true, cell: (use) => day(use.at) },
        { key: "until", name: t("datasets.useUntil"), isWhole: true, cell: (use) => day(use.expires) },
        { key: "runs", name: t("datasets.useRuns"), isNumber: true, cell: (use) => count(use.runs) },
        { key: "left", name: t("datasets.useLeft"), isNumber: true, cell: (use) => bytes(use.bytes_left) },
      ]}
      foot={
        <tfoot>
          <tr>
            <td colSpan={7}>{total}</td>
          </tr>
        </tfoot>
      }
    />
  );
}
