import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { bytes, count } from "../i18n/format";
import type { OutputsTab } from "../ipc/types";
import { Table } from "./Table";

/** Everything that leaves in all runs that a study asks for: item, size, how often, to whom, and the total. */
export function EgressList({ outputs }: { outputs: OutputsTab }) {
  const { t } = useTranslation();
  return (
    <Table
      label={t("review.output")}
      items={outputs.items}
      id={(item) => `${item.task}.${item.name}.${item.shape.join("×")}`}
      columns={[
        { key: "item", name: t("review.item"), cell: (item) => `${item.task}: ${item.name}` },
        { key: "kind", name: t("review.kind"), cell: (item) => named("words.egressKind", item.kind) },
        { key: "shape", name: t("review.shape"), cell: (item) => item.shape.map(count).join(" × ") },
        { key: "bytes", name: t("review.bytes"), isNumber: true, cell: (item) => count(item.bytes) },
        {
          key: "times",
          name: t("review.times", { count: outputs.runs }),
          isNumber: true,
          cell: (item) => count(item.times),
        },
        { key: "to", name: t("review.to"), cell: (item) => item.to },
      ]}
      foot={
        <tfoot>
          <tr>
            <th scope="row" colSpan={3}>
              {t("review.total", { count: outputs.runs })}
            </th>
            <td colSpan={3}>
              {t("review.totalBytes", {
                bytes: count(outputs.bytes_in_all),
                short: bytes(outputs.bytes_in_all),
              })}
            </td>
          </tr>
        </tfoot>
      }
    />
  );
}
