import { useTranslation } from "react-i18next";
import { count, list, percent } from "../i18n/format";
import { useManaged } from "../ipc/hooks";
import { Card } from "../parts/Card";
import { Facts } from "../parts/Facts";
import { useChoice } from "./devices";
import { useHours } from "./limits";

/** Everything that the hospital's IT set, where it set anything. */
export function ManagedCard() {
  const { t } = useTranslation();
  const hours = useHours();
  const choice = useChoice();
  const managed = useManaged();
  const { file, policy, only, proxy, extra_ca, share, threads, quiet } = managed;
  if (!file) return null;
  const facts: [string, string | 0 | false | null | undefined][] = [
    [t("managed.policy"), policy && t("managed.policyValue", { profile: policy })],
    [t("managed.only"), only && (list(only) || t("managed.none"))],
    [t("managed.proxy"), proxy],
    [t("managed.certificates"), extra_ca],
    [t("machine.share"), share && t("managed.mostValue", { most: percent(share / 100) })],
    [t("machine.threads"), threads && t("managed.mostValue", { most: count(threads) })],
    [t("machine.quiet"), quiet?.map(hours).join("; ")],
    [t("machine.yields"), managed.yields && t("register.yes")],
    [t("machine.choice"), managed.device && choice(managed.device, [])],
    [
      t("managed.idle"),
      managed.idle_minutes && t("managed.idleValue", { minutes: count(managed.idle_minutes) }),
    ],
    [t("access.tries"), managed.tries && t("managed.mostValue", { most: count(managed.tries) })],
    [
      t("access.longest_wait_minutes"),
      managed.wait_minutes && t("managed.leastValue", { least: count(managed.wait_minutes) }),
    ],
    [
      t("managed.log"),
      managed.retention_months && t("managed.logValue", { months: count(managed.retention_months) }),
    ],
    [t("managed.models"), managed.no_export && t("managed.noExport")],
    [t("settings.autostart"), managed.autostart && t("managed.autostart")],
    [t("settings.updates"), managed.no_updates ? t("managed.noUpdates") : managed.updates?.url],
    [t("managed.file"), file],
  ];
  return (
    <Card title={t("managed.title")} lead={t("managed.lead")}>
      <Facts isOurs facts={facts.flatMap(([label, value]) => (value ? [{ label, value }] : []))} />
    </Card>
  );
}
