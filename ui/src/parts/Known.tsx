import { useTranslation } from "react-i18next";
import { count, list } from "../i18n/format";
import { visible } from "../i18n/visible";
import type { Trust } from "../ipc/types";
import { Notice } from "./Notice";

interface Props {
  sites: { name: string; trust: Trust }[];
}

/** Names that are listed; of more than these, how many there are. */
const LISTED = 12;

/** How many of these sites are known by more than the coordinator's word, and which ones are not. */
export function Known({ sites }: Props) {
  const { t } = useTranslation();
  const trusted = (trust: Trust) => sites.filter((site) => site.trust === trust);
  const names = trusted("asserted_only").map((site) => visible(site.name));
  const rest = names.length - LISTED;
  const listed = rest > 0 ? [...names.slice(0, LISTED), t("federations.more", { more: count(rest) })] : names;
  if (sites.length === 0) return null;
  return (
    <Notice
      weight={names.length > 0 ? "attention" : "good"}
      title={t("federations.known", {
        verified: count(trusted("verified_here").length),
        all: count(sites.length),
        vouched: count(trusted("vouched_for").length),
      })}
    >
      {names.length > 0 && t("federations.onlyAsserted", { sites: list(listed) })}
    </Notice>
  );
}
