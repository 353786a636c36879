import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { useAnswer } from "../ipc/hooks";
import type { Status } from "../ipc/types";
import { Card } from "../parts/Card";
import { joined } from "../parts/Membership";
import { type Moment, Timeline } from "../parts/Timeline";
import { sawPolicy } from "../shell/preferences";

/** What is left of the set-up, in order; each step can be left out and done later. Gone when all is done. */
export function Beginning({ status }: { status: Status }) {
  const { t } = useTranslation();
  const people = useAnswer("people", {});
  const datasets = useAnswer("datasets", {});
  const [first] = joined(status.memberships);
  const isOver = status.phase === "operating";
  const peers = useAnswer("peers", { federation: first?.federation ?? "" }, first !== undefined && !isOver);
  if (isOver || people.data === undefined || datasets.data === undefined) return null;
  if (first !== undefined && peers.isPending) return null;
  const others = peers.data ?? [];
  const signers = people.data.filter((person) => person.state === "active" && person.key !== null);
  const has = (role: string) => signers.some((person) => person.roles.some((r) => r === role));
  const steps: [string, boolean, string][] = [
    ["second", signers.length > 1, "/settings/people"],
    ["roles", has("data_steward") && has("data_access_approver"), "/settings/people"],
    ["policy", sawPolicy(), "/settings/policy"],
    ["federation", first !== undefined, "/federations/join"],
    [
      "peers",
      others.length > 0 && others.every((peer) => peer.trust !== "asserted_only"),
      first === undefined ? "/federations" : `/federations/${first.federation}`,
    ],
    ["dataset", datasets.data.length > 0, datasets.data.length > 0 ? "/datasets" : "/datasets/new"],
  ];
  const open = steps.filter(([, isDone]) => !isDone).map(([id]) => id);
  if (open.length === 0) return null;
  const moments = steps.map(
    ([id, isDone, to]): Moment => ({
      id,
      icon: isDone ? "check" : "right",
      isDone,
      what: (
        <>
          <Link href={to}>{t(`home.begin.${id}`)}</Link>
          <div>{t(`home.begin.${id}Help`)}</div>
        </>
      ),
      when: t(isDone ? "home.begun" : id === open[0] ? "home.beginNow" : "home.beginLater"),
    }),
  );
  return (
    <Card title={t("home.beginning")} lead={t("home.beginningLead")}>
      <Timeline label={t("home.beginning")} moments={moments} />
    </Card>
  );
}
