import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { Page } from "../parts/Page";

/** An address that leads nowhere. */
export function NotHere() {
  const { t } = useTranslation();
  return (
    <Page title={t("shell.notHere")} lead={t("shell.notHereHelp")}>
      <Link href="/">{t("nav.home")}</Link>
    </Page>
  );
}
