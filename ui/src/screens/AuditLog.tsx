import { useMutation, useQuery } from "@tanstack/react-query";
import { Button } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { count, moment } from "../i18n";
import { call, words } from "../ipc/tauri";
import type { AuditPage } from "../ipc/types";
import { Fault } from "../parts/Fault";

/** What happened at this site, newest first, and whether the log is whole. */
export function AuditLog() {
  const { t } = useTranslation();
  const page = useQuery({
    queryKey: ["audit"],
    queryFn: () => call<AuditPage>("audit", { query: { before: null, limit: 100 } }),
  });
  const verify = useMutation({ mutationFn: () => call<string[]>("verify_audit") });
  return (
    <>
      <h1>{t("audit.title")}</h1>
      <Button className="primary" onPress={() => verify.mutate()} isDisabled={verify.isPending}>
        {t("audit.verify")}
      </Button>
      <div role="status">
        {verify.data?.map((sentence) => (
          <p key={sentence} className="notice">
            {sentence}
          </p>
        ))}
      </div>
      {verify.error && <Fault>{words(verify.error)}</Fault>}
      {page.error && <Fault>{words(page.error)}</Fault>}
      {page.isPending && <p>{t("loading")}</p>}
      {page.data && (
        <>
          <p>{t("audit.shown", { shown: count(page.data.entries.length), total: count(page.data.total) })}</p>
          <table>
            <thead>
              <tr>
                <th scope="col" className="number">
                  {t("audit.number")}
                </th>
                <th scope="col">{t("audit.at")}</th>
                <th scope="col">{t("audit.who")}</th>
                <th scope="col">{t("audit.what")}</th>
                <th scope="col">{t("audit.outcome")}</th>
                <th scope="col">{t("audit.detail")}</th>
                <th scope="col" className="number">
                  {t("audit.bytes")}
                </th>
              </tr>
            </thead>
            <tbody>
              {page.data.entries.map((entry) => (
                <tr key={entry.sequence}>
                  <td className="number">{entry.sequence}</td>
                  <td className="moment">{moment(entry.at)}</td>
                  <td className="wraps">{entry.actor}</td>
                  <td>{entry.action.replaceAll("_", " ")}</td>
                  <td>{entry.outcome}</td>
                  <td className="wraps">{entry.detail}</td>
                  <td className="number">{entry.bytes === null ? "" : count(entry.bytes)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
    </>
  );
}
