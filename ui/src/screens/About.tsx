import packages from "virtual:packages";
import { useTranslation } from "react-i18next";
import { useAnswer } from "../ipc/hooks";
import { Card } from "../parts/Card";
import { Table } from "../parts/Table";

/** Version, licence, and the packages that this page is made of. */
export function About() {
  const { t } = useTranslation();
  const status = useAnswer("status", {});
  return (
    <>
      <Card title={t("settings.about")}>
        <p>{t("settings.version", { version: status.data?.software ?? "…" })}</p>
        <p>{t("settings.licence")}</p>
        <p>{t("settings.font")}</p>
      </Card>
      <Card title={t("settings.packages")} lead={t("settings.packagesLead")} isFlush>
        <Table
          label={t("settings.packages")}
          items={packages}
          id={(p) => `${p.name} ${p.version}`}
          columns={[
            { key: "name", name: t("settings.package"), cell: (p) => p.name },
            { key: "version", name: t("datasets.version"), cell: (p) => p.version },
            { key: "licence", name: t("settings.licenceOf"), cell: (p) => p.license },
          ]}
        />
      </Card>
    </>
  );
}
