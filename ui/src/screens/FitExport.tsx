import { useState } from "react";
import { useTranslation } from "react-i18next";
import { bytes } from "../i18n/format";
import { beginning } from "../i18n/visible";
import { useAction, useManaged } from "../ipc/hooks";
import type { JobView, TableExport } from "../ipc/types";
import { Button } from "../parts/Button";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import forms from "./Forms.module.css";

/** Characters of a study's title in the name that the dialog begins with. */
const TITLE_CHARS = 60;

/** Writes the table of a regression to the chosen place, and says what was written. */
export function FitExport({ job, task }: { job: JobView; task: string }) {
  const { t } = useTranslation();
  const [written, setWritten] = useState<(TableExport & { name: string }) | null>(null);
  const write = useAction("export_table");
  const { no_export: isManaged = false } = useManaged();
  const choose = useAction("choose_place", (chosen) => {
    // A dialog that was closed changes nothing.
    if (chosen)
      write.mutate(
        { job: job.job, task, path: chosen.file },
        { onSuccess: (done) => setWritten({ ...done, name: chosen.name }) },
      );
  });
  const suggested = `${beginning(job.title, TITLE_CHARS)}-${task}.csv`;
  return (
    <>
      <div className={forms.actions}>
        <Button
          isPending={choose.isPending || write.isPending}
          isDisabled={isManaged}
          about={task}
          onPress={() => {
            setWritten(null);
            write.reset();
            choose.mutate({ purpose: "table", suggested });
          }}
        >
          {t("models.exportTable")}
        </Button>
      </div>
      {isManaged && <p className={forms.small}>{t("managed.exportHelp")}</p>}
      <FaultNotice fault={choose.error ?? write.error} />
      <div role="status">
        {written && (
          <Notice weight="good" title={t("models.exportedTable", { name: written.name })}>
            <p>{t("models.exportedTableHelp", { size: bytes(written.bytes) })}</p>
            <div className={forms.small}>{t("models.exportedDigest")}</div>
            <DigestChip digest={written.digest} of={t("models.exportedDigest")} />
          </Notice>
        )}
      </div>
    </>
  );
}
