import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { useAnswer } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { Notice } from "../parts/Notice";
import { hiddenVersion, hideVersion } from "../shell/preferences";
import { useMe } from "../shell/session";

/** That a newer version of this program is known, until somebody hides it here: who installs it may be another person. */
export function UpdateNotice() {
  const { t } = useTranslation();
  const { inside } = useMe();
  const updates = useAnswer("updates", {}, inside()).data;
  const [hidden, setHidden] = useState(hiddenVersion);
  if (!updates?.found?.is_newer || updates.found.version === hidden) return null;
  const { version } = updates.found;
  function hide() {
    hideVersion(version);
    setHidden(version);
  }
  return (
    <Notice
      beside={
        <>
          <Link href="/settings/updates">{t("settings.updates")}</Link>
          <Button kind="quiet" onPress={hide}>
            {t("home.hideVersion")}
          </Button>
        </>
      }
    >
      {t("home.newVersion", { version, running: updates.running })}
    </Notice>
  );
}
