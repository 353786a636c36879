import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { decimal, percent } from "../i18n/format";
import type { Attack, AttackScores, Guard, Interval, Inversion, Membership, Told } from "../ipc/types";
import { Notice } from "../parts/Notice";
import { Table } from "../parts/Table";
import styles from "./Review.module.css";

interface Props {
  attack: Attack;
  task: string;
}

/** What somebody who reads an update could find out about single patients, as far as this site tried it. */
export function DryAttack({ attack, task }: Props) {
  const { t } = useTranslation();
  return (
    <section aria-label={t("attack.of", { task })} className={styles.sentences}>
      <h4>{t("attack.title")}</h4>
      {"found" in attack ? (
        <Scores scores={attack.found} task={task} />
      ) : (
        <Notice title={t("attack.silent")}>
          <Why attack={attack} />
        </Notice>
      )}
    </section>
  );
}

/** Why nothing is said. */
function Why({ attack }: { attack: Exclude<Attack, { found: AttackScores }> }) {
  const { t } = useTranslation();
  if ("too_few" in attack) return t("attack.tooFew", attack.too_few);
  if ("too_slow" in attack) return t("attack.tooSlow", attack.too_slow);
  if ("untried" in attack) return t(`attack.untried.${attack.untried}`);
  return <Engine isMachine>{attack.failed.reason}</Engine>;
}

type T = ReturnType<typeof useTranslation>["t"];

function guarded(t: T, guard: Guard): string {
  if (guard === "none") return t("attack.asItIs");
  if (guard === "noise") return t("attack.noise");
  return t("attack.masked", { sites: guard.masked.sites });
}

/** One sentence: whether these attacks tell, and how often they are right. */
function sentence(t: T, { guard, by_loss, compared }: Membership): string {
  const telling = [by_loss, compared].filter((told) => told.advantage_interval.low > 0);
  if (telling.length === 0) return t("attack.untold", { guard: guarded(t, guard) });
  const right = 50 + 50 * Math.max(...telling.map((told) => told.advantage));
  return t("attack.told", { guard: guarded(t, guard), right: Math.round(right) });
}

interface Row {
  guard: Guard;
  attack: "byLoss" | "compared";
  told: Told;
}

function Scores({ scores, task }: { scores: AttackScores; task: string }) {
  const { t } = useTranslation();
  const { subjects, repeats, rounds, planned } = scores;
  const rows: Row[] = scores.membership.flatMap(({ guard, by_loss, compared }) => [
    { guard, attack: "byLoss", told: by_loss },
    { guard, attack: "compared", told: compared },
  ]);
  const within = (value: number, { low, high }: Interval) =>
    `${decimal(value, 2)} (${t("parts.interval", { low: decimal(low, 2), high: decimal(high, 2) })})`;
  return (
    <>
      {scores.membership.map((found) => (
        <p key={guarded(t, found.guard)}>{sentence(t, found)}</p>
      ))}
      <Table
        label={t("attack.scoresOf", { task })}
        items={rows}
        id={({ guard, attack }) => `${guarded(t, guard)} ${attack}`}
        columns={[
          { key: "guard", name: t("attack.read"), cell: ({ guard }) => guarded(t, guard) },
          {
            key: "attack",
            name: t("attack.by"),
            cell: ({ attack }) => t(attack === "byLoss" ? "attack.byLoss" : "attack.compared"),
          },
          {
            key: "auc",
            name: t("attack.auc"),
            isNumber: true,
            cell: ({ told }) => within(told.auc, told.auc_interval),
          },
          {
            key: "advantage",
            name: t("attack.advantage"),
            isNumber: true,
            cell: ({ told }) => within(told.advantage, told.advantage_interval),
          },
        ]}
      />
      {scores.inversion.map((found) => (
        <p key={guarded(t, found.guard)}>{recovered(t, found)}</p>
      ))}
      <p>{t("attack.how", { subjects, repeats, rounds, planned })}</p>
      <p>{t("attack.aid")}</p>
    </>
  );
}

function recovered(t: T, found: Inversion): string {
  return t("attack.row", {
    guard: guarded(t, found.guard),
    columns: found.columns,
    found: percent(found.recovered),
    guessed: percent(found.guessed),
  });
}
