import { useTranslation } from "react-i18next";
import { Engine, named } from "../i18n/engine";
import { useAction } from "../ipc/hooks";
import type { Fault, Step, StepOutcome } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { FaultNotice } from "../parts/FaultNotice";
import type { IconName } from "../parts/Icon";
import { Timeline } from "../parts/Timeline";
import forms from "./Forms.module.css";

const SIGNS: Record<StepOutcome, IconName> = {
  good: "check",
  notice: "info",
  failed: "alarm",
  skipped: "clock",
};

/** Tests the way to the coordinator step by step, and says what to ask the IT department for. */
export function Diagnosis({ federation }: { federation: string }) {
  const { t } = useTranslation();
  const diagnose = useAction("diagnose");
  return (
    <Card
      title={t("federations.diagnosis")}
      lead={t("federations.diagnosisLead")}
      beside={
        <Button isPending={diagnose.isPending} onPress={() => diagnose.mutate({ federation })}>
          {t("federations.diagnose")}
        </Button>
      }
    >
      <Tested {...diagnose} />
    </Card>
  );
}

interface TestedProps {
  isPending: boolean;
  data: Step[] | undefined;
  error: Fault | null;
}

/** What came of a connection test, step by step. */
export function Tested({ isPending, data, error }: TestedProps) {
  const { t } = useTranslation();
  return (
    <>
      <div role="status">
        {isPending && <p>{t("federations.diagnosing")}</p>}
        {data && (
          <Timeline
            label={t("federations.diagnosis")}
            moments={data.map((step) => ({
              id: step.test,
              icon: SIGNS[step.outcome],
              isDone: step.outcome === "good" || step.outcome === "notice",
              isBad: step.outcome === "failed",
              what: (
                <>
                  <strong>
                    {named("words.test", step.test)}: {named("words.outcome", step.outcome)}
                  </strong>
                  <div>
                    <Engine isMachine>{step.finding}</Engine>
                  </div>
                  {step.request !== null && (
                    <div className={forms.small}>
                      {t("federations.forIt")} <Engine isMachine>{step.request}</Engine>
                    </div>
                  )}
                </>
              ),
            }))}
          />
        )}
      </div>
      <FaultNotice fault={error} />
    </>
  );
}
