import { useState } from "react";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { list } from "../i18n/format";
import { useAction, useAnswer } from "../ipc/hooks";
import type { Outcome, PersonChange, PersonState, PersonView } from "../ipc/types";
import { Actions as Menu } from "../parts/Actions";
import { Answered } from "../parts/Answered";
import { Badge, type Tone } from "../parts/Badge";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { Name, useNameMarks } from "../parts/Name";
import { Table } from "../parts/Table";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";
import { OutcomeNotice } from "./OutcomeNotice";
import { PersonForm } from "./PersonForm";
import { Proposals } from "./Proposals";

const TONES: Record<PersonState, Tone> = {
  invited: "waits",
  active: "live",
  disabled: "ended",
  key_unconfirmed: "waits",
};

/** Whether nobody else could begin with a new key for this person; `is_only_administrator` of the engine. */
function isOnlyAdministrator(person: PersonView, all: PersonView[]): boolean {
  const isOne = ({ roles }: PersonView) => roles.includes("administrator");
  const others = all.filter((p) => p.id !== person.id && p.state === "active" && isOne(p));
  return person.state !== "disabled" && isOne(person) && others.length === 0;
}

/** People of the site, what they may do, and what waits for a second signature. */
export function PeopleSettings() {
  const { t } = useTranslation();
  const { person: me, may, inside } = useMe();
  const people = useAnswer("people", {});
  const marks = useNameMarks();
  const status = useAnswer("status", {});
  const [form, setForm] = useState<PersonView | "new" | null>(null);
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const mayChange = may("administrator");
  // In operation two others can give the only administrator a new key.
  const mayRecover = status.data?.phase === "operating" && inside("data_steward", "data_access_approver");
  const recovers = (p: PersonView) =>
    mayRecover && p.id !== me?.id && isOnlyAdministrator(p, people.data ?? []);
  return (
    <>
      <Proposals onOutcome={setOutcome} />
      {outcome && <OutcomeNotice outcome={outcome} />}
      <Card
        title={t("settings.people")}
        lead={t("settings.peopleLead")}
        beside={
          mayChange && (
            <Button kind="primary" icon="plus" onPress={() => setForm("new")}>
              {t("settings.addPerson")}
            </Button>
          )
        }
        isFlush
      >
        <Answered of={people}>
          {(all) => (
            <Table
              label={t("settings.people")}
              items={all}
              id={(person) => person.id}
              columns={[
                {
                  key: "name",
                  name: t("settings.name"),
                  cell: (p) => (
                    <>
                      <Name of="person" marks={marks}>
                        {p.name}
                      </Name>
                      {p.organisation !== null && (
                        <div className={forms.small}>
                          <Name of="organisation" marks={marks}>
                            {p.organisation}
                          </Name>
                        </div>
                      )}
                    </>
                  ),
                },
                {
                  key: "roles",
                  name: t("settings.roles"),
                  cell: (p) => list(p.roles.map((role) => named("words.role", role))),
                },
                {
                  key: "state",
                  name: t("requests.state"),
                  cell: (p) => <Badge tone={TONES[p.state]}>{named("words.person", p.state)}</Badge>,
                },
                {
                  key: "actions",
                  name: t("federations.actions"),
                  isBare: true,
                  cell: (p) =>
                    (mayChange || recovers(p)) && (
                      <Actions
                        person={p}
                        recovers={recovers(p)}
                        {...(mayChange ? { onEdit: () => setForm(p) } : {})}
                        onOutcome={setOutcome}
                      />
                    ),
                },
              ]}
            />
          )}
        </Answered>
      </Card>
      {form !== null && (
        <PersonForm
          person={form === "new" ? null : form}
          onClose={() => setForm(null)}
          onOutcome={setOutcome}
        />
      )}
    </>
  );
}

interface ActionsProps {
  person: PersonView;
  /** Whether a new key takes two others: this is the only administrator. */
  recovers: boolean;
  /** Changes the roles; only an administrator does, who can do everything else here, too. */
  onEdit?: () => void;
  onOutcome: (outcome: Outcome) => void;
}

type Asked = Exclude<PersonChange, { roles: unknown }>;

function Actions({ person, recovers, onEdit, onOutcome }: ActionsProps) {
  const { t } = useTranslation();
  const [asked, setAsked] = useState<Asked | null>(null);
  const close = () => setAsked(null);
  const change = useAction("change_person", (outcome) => {
    close();
    onOutcome(outcome);
  });
  const all: Asked[] = person.state === "disabled" ? ["enable"] : ["new_key", "disable"];
  const offered: Asked[] = onEdit ? all : ["new_key"];
  const named_ = { name: person.name };
  return (
    <>
      <Menu
        name={t("settings.change")}
        about={person.name}
        actions={[
          ...(onEdit ? [{ id: "roles", name: t("settings.roles"), onAction: onEdit }] : []),
          ...offered.map((what) => ({
            id: what,
            name: t(`settings.${what}`),
            onAction: () => setAsked(what),
          })),
        ]}
      />
      <Confirm
        title={t(`settings.${asked ?? "disable"}Of`, named_)}
        yes={t(`settings.${asked ?? "disable"}`)}
        isDangerous={asked === "disable" || asked === "new_key"}
        isSigned
        isOpen={asked !== null}
        action={change}
        onClose={close}
        onYes={({ passphrase }) => asked && change.mutate({ id: person.id, change: asked, passphrase })}
      >
        <p>
          {asked === "new_key" && recovers
            ? t("settings.recoverHelp", named_)
            : t(`settings.${asked ?? "disable"}Help`)}
        </p>
      </Confirm>
    </>
  );
}
