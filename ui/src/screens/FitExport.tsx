import { useTranslation } from "react-i18next";
import { bytes } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import type { JobView } from "../ipc/types";
import { FileExport } from "./FileExport";

/** Writes the table of a regression to the chosen place. */
export function FitExport({ job, task }: { job: JobView; task: string }) {
  const { t } = useTranslation();
  const write = useAction("export_table");
  return (
    <FileExport
      label={t("models.exportTable")}
      about={task}
      purpose="table"
      title={job.title}
      ending={`${task}.csv`}
      writing={write}
      write={({ file }, done) => write.mutate({ job: job.job, task, path: file }, { onSuccess: done })}
      said={(written) => ({
        title: t("models.exportedTable", { name: written.name }),
        help: t("models.exportedTableHelp", { size: bytes(written.bytes) }),
      })}
    />
  );
}
