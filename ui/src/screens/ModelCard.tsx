import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { brief, count, moment } from "../i18n/format";
import { visible } from "../i18n/visible";
import type { ModelCard as CardView, Fact, ModelFigure, ModelFigures } from "../ipc/types";
import { Card } from "../parts/Card";
import { Facts } from "../parts/Facts";
import { Table } from "../parts/Table";
import forms from "./Forms.module.css";

/** What one should know of a model before using it. */
export function ModelCard({ card }: { card: CardView }) {
  const { t } = useTranslation();
  const stated = (words: string) => (words === "" ? null : words);
  const facts: Fact[] = [
    { label: t("models.cardStudy"), value: card.title },
    { label: t("models.cardPurpose"), value: stated(card.purpose) },
    { label: t("models.cardRequester"), value: card.requester },
    { label: t("models.cardRecipients"), value: stated(card.recipients.join("; ")) },
    { label: t("models.cardRetention"), value: card.retention },
    { label: t("models.cardColumns"), value: stated(card.columns.join(", ")) },
    { label: t("models.cardMade"), value: moment(card.at) },
    {
      label: t("models.cardTraining"),
      value: t("models.cardRounds", {
        count: card.rounds,
        task: card.task,
        // Regressions have no strategy: they are fitted exactly.
        strategy: card.strategy === "" ? t("models.newton") : card.strategy,
      }),
    },
    { label: t("models.cardPrivacy"), value: stated(card.privacy) },
  ];
  if (card.kept_at_sites.length > 0)
    facts.push({ label: t("models.cardKept"), value: card.kept_at_sites.join(", ") });
  if (card.note !== null) facts.push({ label: t("models.cardNote"), value: card.note });
  const figures = card.figures.flatMap(({ task, here, figures }) =>
    figures.map((figure) => ({ id: `${task} ${here} ${figure.name}`, task, here, figure })),
  );
  return (
    <Card title={t("models.card")} lead={t("models.researchOnly")}>
      <Facts facts={facts} isOurs />
      <Table
        label={t("models.cardParties")}
        items={card.parties}
        id={(party) => `${party.name} ${party.organisation}`}
        columns={[
          { key: "name", name: t("models.cardParties"), cell: (party) => party.name },
          { key: "organisation", name: t("models.cardOrganisation"), cell: (party) => party.organisation },
          {
            key: "rounds",
            name: t("jobs.rounds"),
            isNumber: true,
            cell: (party) => count(party.rounds),
          },
        ]}
      />
      {figures.length > 0 && (
        <Table
          label={t("models.cardFigures")}
          items={figures}
          id={(row) => row.id}
          columns={[
            {
              key: "figure",
              name: t("models.cardFigures"),
              cell: (row) => named("words.figure", row.figure.name),
            },
            { key: "task", name: t("models.cardTask"), cell: (row) => row.task },
            {
              key: "where",
              name: t("models.cardWhere"),
              cell: (row) => t(row.here ? "models.cardHere" : "models.cardTogether"),
            },
            {
              key: "value",
              name: t("models.cardValue"),
              isNumber: true,
              cell: (row) => <Value of={row.figure} />,
            },
          ]}
        />
      )}
      {card.figures
        .filter(({ subgroups }) => subgroups.length > 0)
        .map((of) => (
          <Subgroups key={`${of.task} ${of.here}`} of={of} />
        ))}
      {card.model !== null && <p className={forms.small}>{t("models.cardWhole")}</p>}
    </Card>
  );
}

/** Released figures of each code of a column beside each other. */
function Subgroups({ of: { task, here, subgroups } }: { of: ModelFigures }) {
  const { t } = useTranslation();
  const names = [...new Set(subgroups.flatMap(({ figures }) => figures.map(({ name }) => name)))];
  const whose = t(here ? "models.cardHere" : "models.cardTogether");
  return (
    <Table
      label={t("models.cardSubgroups", { task: visible(task), whose })}
      caption={t("models.cardSubgroups", { task: visible(task), whose })}
      items={subgroups}
      id={({ column, code }) => `${column} ${code}`}
      columns={[
        {
          key: "code",
          name: t("models.subgroup"),
          cell: ({ column, code }) => <bdi>{visible(`${column} = ${code}`)}</bdi>,
        },
        { key: "sites", name: t("models.cardSites"), isNumber: true, cell: ({ sites }) => count(sites) },
        ...names.map((name) => ({
          key: name,
          name: named("words.figure", name),
          isNumber: true,
          cell: ({ figures }: { figures: ModelFigure[] }) => {
            const figure = figures.find((figure) => figure.name === name);
            return figure === undefined ? "–" : <Value of={figure} />;
          },
        })),
      ]}
    />
  );
}

/** A figure, and how sure it is as far as that is known. */
function Value({ of: { value, interval, bound } }: { of: ModelFigure }) {
  const { t } = useTranslation();
  return (
    <>
      {brief(value)}
      {interval !== null ? (
        <div className={forms.small}>
          {t("parts.interval", { low: brief(interval.low), high: brief(interval.high) })}
        </div>
      ) : (
        bound !== null &&
        bound > 0 && <div className={forms.small}>{t("models.bound", { bound: brief(bound) })}</div>
      )}
    </>
  );
}
