import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { bytes } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { ModelCopy as CopyView, JobView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Progress } from "../parts/Progress";
import { useMe } from "../shell/session";
import { FileExport } from "./FileExport";
import { FitCard } from "./FitCard";
import forms from "./Forms.module.css";
import { ModelCard } from "./ModelCard";
import { Predict } from "./Predict";

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

/** Writes model and card to the chosen place: the card has none of its own, it lies beside the model. */
function Export({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const write = useAction("export_model");
  return (
    <FileExport
      label={t("models.export")}
      kind="primary"
      purpose="model"
      title={job.title}
      ending={`${job.model?.slice(0, 8) ?? ""}.safetensors`}
      writing={write}
      write={({ file }, done) => write.mutate({ job: job.job, path: file, card: file }, { onSuccess: done })}
      said={(written) => ({
        title: t("models.exported", { name: written.name }),
        help: t("models.exportedHelp", { card: cardOf(written.name), size: bytes(written.bytes) }),
      })}
    />
  );
}
