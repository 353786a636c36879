import { useState } from "react";
import { useTranslation } from "react-i18next";
import { changeLanguage, LANGUAGES, type Language, language } from "../i18n";
import { Card } from "../parts/Card";
import { Choice } from "../parts/Choice";
import { changeDensity, changeTheme, type Density, density, type Theme, theme } from "../shell/preferences";

/** Language and looks of this window. */
export function Looks() {
  const { t } = useTranslation();
  const [worn, setWorn] = useState<{ theme: Theme; density: Density }>({
    theme: theme(),
    density: density(),
  });
  const languages = Object.entries(LANGUAGES) as [Language, string][];
  return (
    <Card title={t("settings.window")} lead={t("settings.windowLead")}>
      <Choice
        label={t("settings.language")}
        value={language()}
        onChange={changeLanguage}
        options={languages.map(([value, label]) => ({ value, label }))}
      />
      <Choice
        label={t("settings.theme")}
        value={worn.theme}
        onChange={(chosen) => {
          changeTheme(chosen);
          setWorn({ ...worn, theme: chosen });
        }}
        options={[
          { value: "system", label: t("settings.themeSystem") },
          { value: "light", label: t("settings.themeLight") },
          { value: "dark", label: t("settings.themeDark") },
        ]}
      />
      <Choice
        label={t("settings.density")}
        value={worn.density}
        onChange={(chosen) => {
          changeDensity(chosen);
          setWorn({ ...worn, density: chosen });
        }}
        options={[
          { value: "comfortable", label: t("settings.comfortable") },
          { value: "compact", label: t("settings.compact") },
        ]}
      />
    </Card>
  );
}
