import { useTranslation } from "react-i18next";
import { useAnswer } from "../ipc/hooks";
import { Card } from "../parts/Card";
import { ThirdParty } from "./ThirdParty";

/** Version, licence, and the libraries of others that the programs are made of. */
export function About() {
  const { t } = useTranslation();
  const status = useAnswer("status", {});
  const engine = useAnswer("about", {}).data?.engine;
  return (
    <>
      <Card title={t("settings.about")}>
        <p>{t("settings.version", { version: status.data?.software ?? "…" })}</p>
        {engine === "here" && <p>{t("settings.runsHere")}</p>}
        {engine === "service" && <p>{t("settings.runsService")}</p>}
        <p>{t("settings.licence")}</p>
        <p>{t("settings.font")}</p>
      </Card>
      <Card title={t("settings.packages")} lead={t("settings.packagesLead")} isFlush>
        <ThirdParty />
      </Card>
    </>
  );
}
