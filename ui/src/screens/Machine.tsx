import { useRef, useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { brief, bytes, count, percent } from "../i18n/format";
import { useAction, useAnswer, useManaged } from "../ipc/hooks";
import type { ComputeLimits, DeviceView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Badge } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Check } from "../parts/Check";
import { Facts } from "../parts/Facts";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { Range } from "../parts/Range";
import { Table } from "../parts/Table";
import { useMe } from "../shell/session";
import { DeviceForm } from "./DeviceForm";
import { useChoice } from "./devices";
import forms from "./Forms.module.css";
import {
  fillIn,
  isAmong,
  LEAST_SHARE,
  type Limits,
  MOST_WINDOWS,
  readOut,
  useHours,
  WEEKDAYS,
} from "./limits";
import { ManagedCard } from "./ManagedCard";
import { QuietWindow } from "./QuietWindow";

/** What this machine trains on, and how much of it training may take. */
export function Machine() {
  const { t } = useTranslation();
  const { may } = useMe();
  const device = useAnswer("device", {});
  const limits = useAnswer("compute_limits", {});
  const set = useAction("set_compute_limits");
  return (
    <>
      <Card title={t("machine.limits")} lead={t("machine.limitsLead")}>
        <Answered of={limits}>
          {(data) =>
            may("administrator") ? (
              <Editor
                key={JSON.stringify(data)}
                limits={data}
                isPending={set.isPending}
                onSet={(chosen) => set.mutate({ limits: chosen })}
              />
            ) : (
              <>
                <Reader limits={data} />
                <Notice>{t("machine.needs")}</Notice>
              </>
            )
          }
        </Answered>
        <FaultNotice fault={set.error} />
        <div role="status">{set.isSuccess && <Notice weight="good">{t("machine.saved")}</Notice>}</div>
      </Card>
      <ManagedCard />
      <Card title={t("machine.device")} lead={t("machine.deviceLead")}>
        <Answered of={device}>{(data) => <Device device={data} />}</Answered>
      </Card>
    </>
  );
}

function Reader({ limits }: { limits: ComputeLimits }) {
  const { t } = useTranslation();
  const hours = useHours();
  const quiet = limits.quiet.map(hours).join("; ");
  return (
    <Facts
      isOurs
      facts={[
        { label: t("machine.quiet"), value: quiet || t("machine.noQuiet") },
        { label: t("machine.share"), value: percent(limits.share / 100) },
        {
          label: t("machine.threads"),
          value: limits.threads === null ? t("machine.allThreads") : count(limits.threads),
        },
        { label: t("machine.yields"), value: t(limits.yields ? "register.yes" : "register.no") },
      ]}
    />
  );
}

interface EditorProps {
  limits: ComputeLimits;
  isPending: boolean;
  onSet: (limits: ComputeLimits) => void;
}

function Editor({ limits, isPending, onSet }: EditorProps) {
  const { t } = useTranslation();
  const [draft, setDraft] = useState<Limits>(() => fillIn(limits));
  const adding = useRef<HTMLDivElement>(null);
  const chosen = readOut(draft);
  const managed = useManaged();
  const [most, threads] = [managed.share ?? 100, managed.threads ?? null];
  function add() {
    const id = Math.max(0, ...draft.quiet.map((window) => window.id + 1));
    const workdays = WEEKDAYS.slice(0, 5);
    setDraft({ ...draft, quiet: [...draft.quiet, { id, days: workdays, from: "08:00", to: "18:00" }] });
  }
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        if (chosen) onSet(chosen);
      }}
    >
      <h3>{t("machine.quiet")}</h3>
      <p className={forms.prose}>{t("machine.quietHelp")}</p>
      {draft.quiet.map((window, at) => (
        <QuietWindow
          key={window.id}
          window={window}
          at={at + 1}
          isManaged={isAmong(window, managed.quiet ?? [])}
          onChange={(next) =>
            setDraft({ ...draft, quiet: draft.quiet.map((w) => (w.id === window.id ? next : w)) })
          }
          onRemove={() => {
            // The button that is pressed goes with its hours.
            adding.current?.querySelector("button")?.focus();
            setDraft({ ...draft, quiet: draft.quiet.filter((w) => w.id !== window.id) });
          }}
        />
      ))}
      <div ref={adding}>
        <Button icon="plus" isDisabled={draft.quiet.length >= MOST_WINDOWS} onPress={add}>
          {t("machine.addHours")}
        </Button>
      </div>
      <Range
        label={t("machine.share")}
        help={
          most < 100
            ? `${t("managed.most", { most: percent(most / 100) })} ${t("machine.shareHelp")}`
            : t("machine.shareHelp")
        }
        value={draft.share}
        onChange={(share) => setDraft({ ...draft, share })}
        least={LEAST_SHARE}
        most={most}
        shown={percent(draft.share / 100)}
      />
      <Field
        label={t("machine.threads")}
        help={threads === null ? t("machine.threadsHelp") : t("managed.most", { most: count(threads) })}
        name="threads"
        type="number"
        min={1}
        {...(threads === null ? { isOptional: true } : { max: threads })}
        value={draft.threads}
        onChange={(threads) => setDraft({ ...draft, threads })}
      />
      <Check
        label={t("machine.yields")}
        help={managed.yields ? t("managed.byIt") : t("machine.yieldsHelp")}
        isDisabled={managed.yields === true}
        value={draft.yields}
        onChange={(yields) => setDraft({ ...draft, yields })}
      />
      <div role="status">
        {chosen === null && <Notice weight="attention">{t("machine.incomplete")}</Notice>}
      </div>
      <div className={forms.actions}>
        <Button type="submit" kind="primary" isPending={isPending} isDisabled={chosen === null}>
          {t("machine.save")}
        </Button>
      </div>
    </Form>
  );
}

function Device({ device }: { device: DeviceView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const named = useChoice();
  const memory = device.worker_memory_bytes;
  const isOurs = device.decided_by === "people";
  const why = isOurs ? "" : ` (${t(device.decided_by === "it" ? "managed.byIt" : "machine.byStart")})`;
  // Two cards may bear one name; work runs on the first.
  const cards = device.cards.map((card, at) => ({ ...card, at }));
  const used = cards.find((card) => card.name === device.used)?.at;
  return (
    <>
      <Notice weight="good" title={t("machine.uses", { device: device.used ?? t("machine.processor") })}>
        {device.reason && <Engine isMachine>{device.reason}</Engine>}
      </Notice>
      {device.cards.length === 0 ? (
        <p>{t("machine.noCards")}</p>
      ) : (
        <Table
          label={t("machine.cards")}
          items={cards}
          id={(card) => String(card.at)}
          columns={[
            { key: "name", name: t("machine.card"), cell: (card) => card.name },
            {
              key: "speed",
              name: t("machine.speed"),
              isNumber: true,
              cell: (card) => (card.speed === null ? "–" : t("machine.times", { times: brief(card.speed) })),
            },
            {
              key: "use",
              name: t("machine.use"),
              cell: (card) =>
                card.at === used ? (
                  <Badge tone="live">{t("machine.used")}</Badge>
                ) : card.reason ? (
                  <Engine isMachine>{card.reason}</Engine>
                ) : (
                  t("machine.notUsed")
                ),
            },
          ]}
        />
      )}
      <Facts
        isOurs
        facts={[
          { label: t("machine.choice"), value: named(device.choice, device.cards) + why },
          { label: t("machine.memory"), value: memory === null ? t("machine.noLimit") : bytes(memory) },
          { label: t("machine.runs"), value: count(device.runs_at_a_time) },
        ]}
      />
      {isOurs && may("administrator") && <DeviceForm device={device} />}
    </>
  );
}
