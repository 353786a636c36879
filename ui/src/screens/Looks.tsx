import { useState } from "react";
import { useTranslation } from "react-i18next";
import { LANGUAGES, type Language, language } from "../i18n";
import { useAction, useManaged } from "../ipc/hooks";
import type { Preferences } from "../ipc/types";
import { Card } from "../parts/Card";
import { Check } from "../parts/Check";
import { Choice } from "../parts/Choice";
import { FaultNotice } from "../parts/FaultNotice";
import { adopt, preferences, preferLanguage } from "../shell/preferences";

/** Language, looks and behaviour of this person's window. */
export function Looks() {
  const { t } = useTranslation();
  const [worn, setWorn] = useState(preferences());
  const keep = useAction("set_preferences");
  const { autostart: isManaged = false } = useManaged();
  const languages = Object.entries(LANGUAGES) as [Language, string][];
  function prefer(change: Partial<Preferences>) {
    const chosen = { ...preferences(), ...change };
    const take = () => {
      adopt(chosen);
      setWorn(chosen);
    };
    keep.mutate({ preferences: chosen }, { onSuccess: take });
  }
  return (
    <Card title={t("settings.window")} lead={t("settings.windowLead")}>
      <Choice
        label={t("settings.language")}
        value={language()}
        onChange={preferLanguage}
        options={languages.map(([value, label]) => ({ value, label }))}
      />
      <Choice
        label={t("settings.theme")}
        value={worn.theme}
        onChange={(theme) => prefer({ theme })}
        options={[
          { value: "system", label: t("settings.themeSystem") },
          { value: "light", label: t("settings.themeLight") },
          { value: "dark", label: t("settings.themeDark") },
        ]}
      />
      <Choice
        label={t("settings.density")}
        value={worn.density}
        onChange={(density) => prefer({ density })}
        options={[
          { value: "comfortable", label: t("settings.comfortable") },
          { value: "compact", label: t("settings.compact") },
        ]}
      />
      <Check
        label={t("settings.autostart")}
        help={isManaged ? t("managed.byIt") : t("settings.autostartHelp")}
        isDisabled={isManaged}
        value={isManaged || worn.autostart}
        onChange={(autostart) => prefer({ autostart })}
      />
      <Check
        label={t("settings.notify")}
        help={t("settings.notifyHelp")}
        value={!worn.quiet}
        onChange={(notify) => prefer({ quiet: !notify })}
      />
      <FaultNotice fault={keep.error} />
    </Card>
  );
}
