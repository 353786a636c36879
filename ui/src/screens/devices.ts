// What networks are trained on: by a rule, or on one card.
import { useTranslation } from "react-i18next";
import type { CardView } from "../ipc/types";

/** What stands for no card but for a rule by which one is taken. */
export const RULES = ["auto", "cpu", "gpu"] as const;

/** What was chosen, in words: a rule, or a card by its name where the machine has it. */
export function useChoice(): (choice: string, cards: CardView[]) => string {
  const { t } = useTranslation();
  return (choice, cards) => {
    const rule = RULES.find((known) => known === choice);
    if (rule !== undefined) return t(`machine.choices.${rule}`);
    return t("machine.only", { card: cards.find(({ card }) => card === choice)?.name ?? choice });
  };
}
