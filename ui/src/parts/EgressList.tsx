import { useTranslation } from "react-i18next";
import { count } from "../i18n";
import type { EgressItem } from "../ipc/types";

/** Everything that leaves in all runs that a study asks for: item, size, how often, to whom, and the total. */
export function EgressList({ items, runs, bytes }: { items: EgressItem[]; runs: number; bytes: number }) {
  const { t } = useTranslation();
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">{t("review.item")}</th>
          <th scope="col">{t("review.shape")}</th>
          <th scope="col" className="number">
            {t("review.bytes")}
          </th>
          <th scope="col" className="number">
            {t("review.times", { count: runs })}
          </th>
          <th scope="col">{t("review.to")}</th>
        </tr>
      </thead>
      <tbody>
        {items.map((item) => (
          <tr key={`${item.task}.${item.name}.${item.shape.join("×")}`}>
            <td>
              {item.task}: {item.name}
            </td>
            <td>{item.shape.map(count).join(" × ")}</td>
            <td className="number">{count(item.bytes)}</td>
            <td className="number">{count(item.times)}</td>
            <td>{item.to}</td>
          </tr>
        ))}
      </tbody>
      <tfoot>
        <tr>
          <th scope="row" colSpan={2}>
            {t("review.total", { count: runs })}
          </th>
          <td className="number">{count(bytes)}</td>
          <td colSpan={2} />
        </tr>
      </tfoot>
    </table>
  );
}
