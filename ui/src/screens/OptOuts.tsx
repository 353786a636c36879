import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Chosen } from "../ipc/types";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { Notice } from "../parts/Notice";
import { ChooseFile } from "./ChooseFile";

/** Imports the list of patients who opted out: it holds for all datasets, and only grows. */
export function OptOuts() {
  const { t } = useTranslation();
  const [file, setFile] = useState<Chosen | null>(null);
  const [isAsking, setAsking] = useState(false);
  const add = useAction("import_opt_outs", () => {
    setAsking(false);
    setFile(null);
  });
  return (
    <Card title={t("optOuts.title")} lead={t("optOuts.lead")}>
      <ChooseFile
        purpose="opt_outs"
        words={t("optOuts.choose")}
        chosen={file}
        onChosen={(chosen) => {
          setFile(chosen);
          setAsking(true);
        }}
      />
      <div role="status">
        {add.data && (
          <Notice weight="good" title={t("optOuts.done")}>
            {t("optOuts.listed", { count: add.data.listed })}{" "}
            {t("optOuts.affected", { count: add.data.affected })}
          </Notice>
        )}
      </div>
      <Confirm
        title={t("optOuts.ask", { file: file?.name })}
        yes={t("optOuts.import")}
        isDangerous
        isOpen={isAsking}
        action={add}
        onClose={() => {
          setAsking(false);
          setFile(null);
        }}
        onYes={() => file && add.mutate({ path: file.file })}
      >
        <p>{t("optOuts.askHelp")}</p>
      </Confirm>
    </Card>
  );
}
