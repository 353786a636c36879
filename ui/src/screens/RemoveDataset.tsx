import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useLocation } from "wouter";
import { useAction } from "../ipc/hooks";
import type { DatasetView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Confirm } from "../parts/Confirm";
import { useMe } from "../shell/session";

/** Removes a dataset for good, after saying what goes and what stays; data stewards do. */
export function RemoveDataset({ dataset }: { dataset: DatasetView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const [, go] = useLocation();
  const [isAsking, setAsking] = useState(false);
  const remove = useAction("remove_dataset", () => go("/datasets"));
  if (!may("data_steward")) return null;
  return (
    <>
      <Button kind="danger" onPress={() => setAsking(true)}>
        {t("datasets.remove")}
      </Button>
      <Confirm
        title={t("datasets.removeOf", { name: dataset.name })}
        yes={t("datasets.remove")}
        isDangerous
        reason={t("datasets.removeReason")}
        isOpen={isAsking}
        action={remove}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => remove.mutate({ dataset: dataset.id, reason })}
      >
        <p>{t("datasets.removeHelp")}</p>
        <p>{t("datasets.removeStays")}</p>
      </Confirm>
    </>
  );
}
