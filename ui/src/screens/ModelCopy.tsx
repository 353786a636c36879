import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { bytes } from "../i18n/format";
import { beginning } from "../i18n/visible";
import { useAction, useAnswer, useManaged } from "../ipc/hooks";
import type { ModelCopy as CopyView, JobView, ModelExport } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Progress } from "../parts/Progress";
import { useMe } from "../shell/session";
import { FitCard } from "./FitCard";
import forms from "./Forms.module.css";
import { ModelCard } from "./ModelCard";
import { Predict } from "./Predict";

/** Characters of a study's title in the name that the dialog begins with. */
const TITLE_CHARS = 60;

/** The card that lies beside a model, as the window names it. */
const cardOf = (name: string) => `${name.replace(/(?<=.)\.[^.]*$/, "")}.card.json`;

/** The released model of a run, or the tables that it ended with: fetched when somebody asks, shown by its card, and written
 * to a file of their choice. */
export function ModelCopy({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const { maySee } = useMe();
  const hasFit = (...of: string[]) => (job.tasks ?? []).some((task) => of.includes(task.component));
  // A Cox regression ends with a table and without a model.
  const isTable = job.model === null && hasFit("cox");
  const isReleased = job.released !== null && (job.model !== null || isTable);
  const copy = useAnswer("model_copy", { job: job.job }, maySee && isReleased);
  if (!maySee || !(isReleased || job.held)) return null;
  return (
    <>
      <Card
        title={t(isTable ? "models.tables" : "models.copy")}
        lead={t(isTable ? "models.tablesLead" : "models.copyLead")}
      >
        {isReleased ? (
          <Answered of={copy}>{(copy) => <State job={job} copy={copy} isTable={isTable} />}</Answered>
        ) : (
          <p className={forms.prose}>{t(isTable ? "models.tablesHeld" : "models.copyHeld")}</p>
        )}
      </Card>
      {copy.data?.state === "here" && !isTable && <Predict job={job} />}
      {copy.data?.card && <ModelCard card={copy.data.card} />}
      {copy.data?.card?.fits.map((fit) => (
        <FitCard key={fit.task} job={job} fit={fit} />
      ))}
      {copy.data?.card?.fits.length === 0 && hasFit("glm", "cox") && <Notice>{t("models.noTable")}</Notice>}
    </>
  );
}

function State({ job, copy, isTable }: { job: JobView; copy: CopyView; isTable: boolean }) {
  const { t } = useTranslation();
  const fetch = useAction("fetch_model");
  const stop = useAction("stop_fetching");
  const isUnderWay = copy.state === "asked" || copy.state === "coming";
  const [done, all] = copy.moved ?? [0, 0];
  return (
    <>
      <div role="status" className={forms.prose}>
        {copy.state === "none" && t(isTable ? "models.tablesNone" : "models.copyNone")}
        {copy.state === "asked" && t("models.copyAsked")}
        {copy.state === "coming" &&
          (copy.moved === null
            ? t("models.copyBegins")
            : t("models.copyComing", { done: bytes(done), all: bytes(all) }))}
        {copy.state === "here" && t(isTable ? "models.tablesHere" : "models.copyHere")}
        {copy.state === "failed" && (
          <Notice weight="attention" title={t(isTable ? "models.tablesFailed" : "models.copyFailed")}>
            <Engine isMachine>{copy.reason ?? ""}</Engine>
          </Notice>
        )}
      </div>
      {copy.moved !== null && <Progress label={t("models.copyProgress")} done={done} all={all} />}
      <div className={forms.actions}>
        {(copy.state === "none" || copy.state === "failed") && (
          <Button kind="primary" isPending={fetch.isPending} onPress={() => fetch.mutate({ job: job.job })}>
            {t(
              copy.state === "failed" ? "models.fetchAgain" : isTable ? "models.fetchTables" : "models.fetch",
            )}
          </Button>
        )}
        {isUnderWay && (
          <Button isPending={stop.isPending} onPress={() => stop.mutate({ job: job.job })}>
            {t("models.fetchStop")}
          </Button>
        )}
      </div>
      <FaultNotice fault={fetch.error ?? stop.error} />
      {copy.state === "here" && !isTable && <Export job={job} />}
    </>
  );
}

/** Writes model and card to the chosen place, and says what was written. */
function Export({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const [written, setWritten] = useState<(ModelExport & { name: string }) | null>(null);
  const write = useAction("export_model");
  const { no_export: isManaged = false } = useManaged();
  const choose = useAction("choose_place", (chosen) => {
    // A dialog that was closed changes nothing. The card has no place of its own: it lies beside the model.
    if (chosen)
      write.mutate(
        { job: job.job, path: chosen.file, card: chosen.file },
        { onSuccess: (done) => setWritten({ ...done, name: chosen.name }) },
      );
  });
  const suggested = `${beginning(job.title, TITLE_CHARS)}-${job.model?.slice(0, 8) ?? ""}.safetensors`;
  return (
    <>
      <div className={forms.actions}>
        <Button
          kind="primary"
          isPending={choose.isPending || write.isPending}
          isDisabled={isManaged}
          onPress={() => {
            setWritten(null);
            write.reset();
            choose.mutate({ purpose: "model", suggested });
          }}
        >
          {t("models.export")}
        </Button>
      </div>
      {isManaged && <p className={forms.small}>{t("managed.exportHelp")}</p>}
      <FaultNotice fault={choose.error ?? write.error} />
      <div role="status">
        {written && (
          <Notice weight="good" title={t("models.exported", { name: written.name })}>
            <p>{t("models.exportedHelp", { card: cardOf(written.name), size: bytes(written.bytes) })}</p>
            <div className={forms.small}>{t("models.exportedDigest")}</div>
            <DigestChip digest={written.digest} of={t("models.exportedDigest")} />
          </Notice>
        )}
      </div>
    </>
  );
}
