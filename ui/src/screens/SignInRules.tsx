import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { count } from "../i18n/format";
import { useAction, useAnswer, useManaged } from "../ipc/hooks";
import type { SignInRules as Rules } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { Facts } from "../parts/Facts";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";

/** From and to which number somebody may choose; the engine's own rules. */
const BOUNDS = {
  idle_minutes: [2, 60],
  tries: [3, 10],
  longest_wait_minutes: [5, 60],
} as const satisfies Record<keyof Rules, readonly [number, number]>;

const RULES = ["idle_minutes", "tries", "longest_wait_minutes"] as const satisfies (keyof Rules)[];

/** When people are signed out and what wrong passphrases cost; for administrators the way to change it. */
export function SignInRules() {
  const { t } = useTranslation();
  const { may } = useMe();
  const rules = useAnswer("sign_in_rules", {});
  const [isSaved, setSaved] = useState(false);
  return (
    <Card title={t("access.title")} lead={t("access.lead")}>
      <Answered of={rules}>
        {(now) =>
          may("administrator") ? (
            <Editor now={now} onSaved={() => setSaved(true)} />
          ) : (
            <>
              <Facts
                isOurs
                facts={RULES.map((rule) => ({ label: t(`access.${rule}`), value: count(now[rule]) }))}
              />
              <Notice>{t("machine.needs")}</Notice>
            </>
          )
        }
      </Answered>
      <div role="status">{isSaved && <Notice weight="good">{t("access.saved")}</Notice>}</div>
    </Card>
  );
}

/** What may be typed, where the hospital's IT may have narrowed it. */
function useBounds() {
  const managed = useManaged();
  const { idle_minutes: idle, tries, wait_minutes: wait } = managed;
  const [idleLeast, idleMost] = BOUNDS.idle_minutes;
  const [triesLeast, triesMost] = BOUNDS.tries;
  const [waitLeast, waitMost] = BOUNDS.longest_wait_minutes;
  return {
    // Where the IT ends sessions sooner than anybody here could, that may be set too.
    idle_minutes: {
      least: Math.min(idleLeast, idle ?? idleLeast),
      most: Math.min(idleMost, idle ?? idleMost),
      isManaged: idle != null,
    },
    tries: { least: triesLeast, most: Math.min(triesMost, tries ?? triesMost), isManaged: tries != null },
    longest_wait_minutes: {
      least: Math.max(waitLeast, wait ?? waitLeast),
      most: waitMost,
      isManaged: wait != null,
    },
  };
}

function Editor({ now, onSaved }: { now: Rules; onSaved: () => void }) {
  const { t } = useTranslation();
  const bounds = useBounds();
  // What was not touched follows what counts.
  const [typed, setTyped] = useState<Partial<Record<keyof Rules, string>>>({});
  const [isAsking, setAsking] = useState(false);
  const set = useAction("set_sign_in_rules", () => {
    setAsking(false);
    setTyped({});
    onSaved();
  });
  const text = (rule: keyof Rules) => typed[rule] ?? String(now[rule]);
  const rules: Rules = {
    idle_minutes: Number(text("idle_minutes")),
    tries: Number(text("tries")),
    longest_wait_minutes: Number(text("longest_wait_minutes")),
  };
  const isSound = RULES.every((rule) => {
    const { least, most } = bounds[rule];
    return /^\d+$/.test(text(rule)) && rules[rule] >= least && rules[rule] <= most;
  });
  return (
    <>
      <Form
        className={forms.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (isSound) setAsking(true);
        }}
      >
        {RULES.map((rule) => {
          const { least, most, isManaged } = bounds[rule];
          const help = t("access.bounds", { least: count(least), most: count(most) });
          return (
            <Field
              key={rule}
              label={t(`access.${rule}`)}
              help={isManaged ? `${t("managed.byIt")} ${help}` : help}
              name={rule}
              type="number"
              min={least}
              max={most}
              value={text(rule)}
              onChange={(value) => setTyped({ ...typed, [rule]: value })}
            />
          );
        })}
        <div className={forms.actions}>
          <Button type="submit" isDisabled={!isSound}>
            {t("access.set")}
          </Button>
        </div>
      </Form>
      <Confirm
        title={t("access.set")}
        yes={t("access.set")}
        isSigned
        isOpen={isAsking}
        action={set}
        onClose={() => setAsking(false)}
        onYes={({ passphrase }) => set.mutate({ rules, passphrase })}
      >
        <p>{t("access.setHelp")}</p>
      </Confirm>
    </>
  );
}
