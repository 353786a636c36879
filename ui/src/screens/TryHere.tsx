import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import { Button } from "../parts/Button";
import { Confirm } from "../parts/Confirm";
import { Copy } from "../parts/Copy";
import styles from "./Forms.module.css";

/** Opens a site of this account beside the service's, for whoever asks for it twice; it would lie in `folder`. */
export function TryHere({ folder }: { folder: string }) {
  const { t } = useTranslation();
  const [asks, setAsks] = useState(false);
  const tryHere = useAction("try_here", () => setAsks(false));
  return (
    <>
      <Button kind="quiet" onPress={() => setAsks(true)}>
        {t("setup.service.try")}
      </Button>
      <Confirm
        title={t("setup.service.tryTitle")}
        yes={t("setup.service.tryYes")}
        action={tryHere}
        isOpen={asks}
        onClose={() => setAsks(false)}
        onYes={() => tryHere.mutate({})}
      >
        <p>{t("setup.service.tryHelp", { folder })}</p>
      </Confirm>
    </>
  );
}

/** What whoever administers the machine types. */
export function Command({ command }: { command: string }) {
  return (
    <div className={styles.chosen} translate="no">
      <code>{command}</code>
      <Copy text={command} of={command} />
    </div>
  );
}
