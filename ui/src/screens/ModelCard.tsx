import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { brief, count, moment } from "../i18n/format";
import type { ModelCard as CardView, Fact } from "../ipc/types";
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
      value: t("models.cardRounds", { count: card.rounds, task: card.task, strategy: card.strategy }),
    },
    { label: t("models.cardPrivacy"), value: stated(card.privacy) },
  ];
  if (card.kept_at_sites.length > 0)
    facts.push({ label: t("models.cardKept"), value: card.kept_at_sites.join(", ") });
  if (card.note !== null) facts.push({ label: t("models.cardNote"), value: card.note });
  const figures = card.figures.flatMap(({ task, here, figures }) =>
    figures.map(({ name, value }) => ({ id: `${task} ${here} ${name}`, task, here, name, value })),
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
            { key: "figure", name: t("models.cardFigures"), cell: (row) => named("words.figure", row.name) },
            { key: "task", name: t("models.cardTask"), cell: (row) => row.task },
            {
              key: "where",
              name: t("models.cardWhere"),
              cell: (row) => t(row.here ? "models.cardHere" : "models.cardTogether"),
            },
            { key: "value", name: t("models.cardValue"), isNumber: true, cell: (row) => brief(row.value) },
          ]}
        />
      )}
      <p className={forms.small}>{t("models.cardWhole")}</p>
    </Card>
  );
}
