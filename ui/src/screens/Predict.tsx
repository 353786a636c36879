import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { bytes } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { JobView, PredictionMade, PredictionOffer } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { Picker } from "../parts/Picker";
import { Progress } from "../parts/Progress";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

/** Characters of a dataset's name in the name that the dialog begins with. */
const NAME_CHARS = 60;

/** The released model used on data of this site, where its policy allows that. */
export function Predict({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const { inside } = useMe();
  const may = inside("data_steward", "data_access_approver");
  const offer = useAnswer("prediction", { job: job.job }, may);
  if (!may) return null;
  return (
    <Card title={t("predict.title")} lead={t("models.researchOnly")}>
      <p className={forms.prose}>{t("predict.what")}</p>
      <Answered of={offer}>{(offer) => <Offer job={job} offer={offer} />}</Answered>
    </Card>
  );
}

function Offer({ job, offer }: { job: JobView; offer: PredictionOffer }) {
  const { t } = useTranslation();
  if (!offer.allowed) return <Notice>{t("predict.off")}</Notice>;
  if (offer.against !== null)
    return (
      <Notice weight="attention" title={t("predict.against")}>
        <Engine isMachine>{offer.against}</Engine>
      </Notice>
    );
  if (offer.datasets.length === 0) return <Notice>{t("predict.none")}</Notice>;
  return <Maker job={job} offer={offer} />;
}

/** Which dataset, whether it fits, how far it is, and what came of it. */
function Maker({ job, offer }: { job: JobView; offer: PredictionOffer }) {
  const { t } = useTranslation();
  const [wanted, setWanted] = useState<string | null>(null);
  const [made, setMade] = useState<(PredictionMade & { name: string }) | null>(null);
  const write = useAction("predict");
  const only = offer.datasets.length === 1 ? offer.datasets[0] : undefined;
  const chosen = offer.datasets.find(({ dataset }) => dataset === wanted) ?? only;
  const choose = useAction("choose_place", (place) => {
    // A dialog that was closed changes nothing.
    if (place && chosen)
      write.mutate(
        { job: job.job, dataset: chosen.dataset, path: place.file },
        { onSuccess: (done) => setMade({ ...done, name: place.name }) },
      );
  });
  const lacking = chosen?.missing.join(", ") ?? "";
  // What somebody else began is shown too: one is made at a time.
  const done = offer.under_way ?? (write.isPending ? 0 : null);
  return (
    <>
      <Picker
        label={t("predict.dataset")}
        options={offer.datasets.map(({ dataset, name, missing }) => ({
          value: dataset,
          label: name,
          ...(missing.length > 0 && { help: t("predict.lacks", { columns: missing.join(", ") }) }),
        }))}
        value={chosen?.dataset ?? null}
        onChange={(dataset) => {
          setWanted(dataset);
          setMade(null);
          write.reset();
        }}
        placeholder={t("predict.choose")}
        isDisabled={done !== null}
      />
      {lacking !== "" && <Notice weight="attention">{t("predict.lacksHelp", { columns: lacking })}</Notice>}
      <div className={forms.actions}>
        <Button
          kind="primary"
          isPending={choose.isPending || done !== null}
          isDisabled={chosen === undefined || lacking !== ""}
          onPress={() => {
            setMade(null);
            write.reset();
            const name = `${chosen?.name.slice(0, NAME_CHARS) ?? ""}-${job.model?.slice(0, 8) ?? ""}.csv`;
            choose.mutate({ purpose: "predictions", suggested: name });
          }}
        >
          {t("predict.make")}
        </Button>
      </div>
      {done !== null && <UnderWay done={done} />}
      <FaultNotice fault={choose.error ?? write.error} />
      <div role="status">{made && <Made made={made} />}</div>
    </>
  );
}

function UnderWay({ done }: { done: number }) {
  const { t } = useTranslation();
  const stop = useAction("stop_predicting");
  return (
    <>
      <p className={forms.prose}>{t("predict.making")}</p>
      <Progress label={t("predict.progress")} done={done} all={100}>
        <Button isPending={stop.isPending} onPress={() => stop.mutate({})}>
          {t("predict.stop")}
        </Button>
      </Progress>
      <FaultNotice fault={stop.error} />
    </>
  );
}

function Made({ made }: { made: PredictionMade & { name: string } }) {
  const { t } = useTranslation();
  return (
    <Notice weight="good" title={t("predict.done", { name: made.name })}>
      <p>{t("models.researchOnly")}</p>
      <p>{t("predict.purpose", { purpose: made.purpose })}</p>
      <p>{t("predict.rows", { count: made.rows, size: bytes(made.bytes) })}</p>
      {made.incomplete > 0 && <p>{t("predict.incomplete", { count: made.incomplete })}</p>}
      {made.opted_out > 0 && <p>{t("predict.optedOut", { count: made.opted_out })}</p>}
      {made.opted_out_since > 0 && <p>{t("predict.since", { count: made.opted_out_since })}</p>}
      <p>{t("predict.keep")}</p>
      <div className={forms.small}>{t("predict.digest")}</div>
      <DigestChip digest={made.digest} of={t("predict.digest")} />
    </Notice>
  );
}
