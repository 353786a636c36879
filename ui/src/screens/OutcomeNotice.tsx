import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import type { Outcome } from "../ipc/types";
import { Copy } from "../parts/Copy";
import { Notice } from "../parts/Notice";
import forms from "./Forms.module.css";

/** What became of a change: done, with a code to be handed over, or waiting for a second person. */
export function OutcomeNotice({ outcome }: { outcome: Outcome }) {
  const { t } = useTranslation();
  if ("proposed" in outcome) {
    return (
      <div role="status">
        <Notice weight="attention" title={t("settings.proposed")}>
          <Engine>{outcome.proposed.words}</Engine>
        </Notice>
      </div>
    );
  }
  const { code } = outcome.done;
  return (
    <div role="status">
      <Notice title={t("settings.done")}>
        {code !== null && (
          <>
            <p>{t("settings.codeHelp")}</p>
            <p className={forms.code}>
              <span translate="no">{code}</span>
              <Copy text={code} of={t("signIn.code")} />
            </p>
          </>
        )}
      </Notice>
    </div>
  );
}
