import { useTranslation } from "react-i18next";
import type { Membership, Status } from "../ipc/types";
import { Fault } from "./Fault";

/** The state of the site in sentences: links, stop, alarms, and that data are public where the policy says so. */
export function SiteState({ status }: { status: Status }) {
  const { t } = useTranslation();

  function link(membership: Membership): string {
    const names = { site: membership.site_name, federation: membership.name };
    if (membership.link === "idle") return t("status.idle", names);
    if ("connected" in membership.link) return t("status.connected", names);
    return t("status.disconnected", { ...names, reason: membership.link.disconnected.reason });
  }

  return (
    <section aria-label={t("app")}>
      {status.public_data && <p className="notice">{t("status.publicData")}</p>}
      {status.stopped !== null && <Fault>{t("status.stopped", { reason: status.stopped })}</Fault>}
      {status.alarms.map((alarm) => (
        <Fault key={alarm.id}>{alarm.words}</Fault>
      ))}
      {status.memberships.map((membership) => (
        <p key={membership.federation}>{link(membership)}</p>
      ))}
    </section>
  );
}
