import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { DeviceView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Choice } from "../parts/Choice";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { RULES, useChoice } from "./devices";
import forms from "./Forms.module.css";

/** On what networks are trained from the next work on: by a rule, or on one card. */
export function DeviceForm({ device }: { device: DeviceView }) {
  const { t } = useTranslation();
  const named = useChoice();
  // What was not touched follows what counts.
  const [typed, setTyped] = useState<string | null>(null);
  const chosen = typed ?? device.choice;
  const set = useAction("set_device", () => setTyped(null));
  const rules = RULES.map((rule) => ({
    value: rule as string,
    label: t(`machine.choices.${rule}`),
    help: t(`machine.choiceHelp.${rule}`),
  }));
  // One that was chosen and is not there any more can still be seen.
  const ids = new Set([...device.cards.map(({ card }) => card), device.choice]);
  const cards = [...ids].filter((id) => !RULES.some((rule) => rule === id));
  return (
    <>
      <Form
        className={forms.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          set.mutate({ choice: chosen });
        }}
      >
        <Choice
          label={t("machine.choice")}
          value={chosen}
          onChange={setTyped}
          options={[
            ...rules,
            ...cards.map((id) => ({ value: id, label: named(id, device.cards), help: id })),
          ]}
        />
        <div className={forms.actions}>
          <Button type="submit" kind="primary" isPending={set.isPending}>
            {t("machine.saveDevice")}
          </Button>
        </div>
      </Form>
      <FaultNotice fault={set.error} />
      <div role="status">{set.isSuccess && <Notice weight="good">{t("machine.savedDevice")}</Notice>}</div>
    </>
  );
}
