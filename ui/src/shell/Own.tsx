import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { Notice } from "../parts/Notice";
import { useMe } from "./session";

/** What is the site's own. A person of another organisation is not shown it, and nothing is asked of the engine for them:
 * each denial would be an entry of the ledger. */
export function Own({ children }: { children: ReactNode }) {
  const { t } = useTranslation();
  const { inside } = useMe();
  return inside() ? children : <Notice>{t("shell.inside")}</Notice>;
}
