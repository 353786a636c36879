import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Outcome, PersonView, Role } from "../ipc/types";
import { Button } from "../parts/Button";
import { Checks } from "../parts/Checks";
import confirm from "../parts/Confirm.module.css";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Over } from "../parts/Over";
import { SigningField } from "../parts/SigningField";

const ROLES: Role[] = ["administrator", "data_steward", "data_access_approver", "privacy_officer", "auditor"];

interface Props {
  /** Whose roles are changed; nobody yet for a new person. */
  person: PersonView | null;
  onClose: () => void;
  onOutcome: (outcome: Outcome) => void;
}

/** Adds a person, or changes the roles of one. */
export function PersonForm({ person, onClose, onOutcome }: Props) {
  const { t } = useTranslation();
  const [name, setName] = useState(person?.name ?? "");
  const [roles, setRoles] = useState<Role[]>(person?.roles ?? []);
  const [organisation, setOrganisation] = useState("");
  const [passphrase, setPassphrase] = useState("");
  const done = (outcome: Outcome) => {
    onClose();
    onOutcome(outcome);
  };
  const add = useAction("add_person", done);
  const change = useAction("change_person", done);
  const title = person ? t("settings.rolesOf", { name: person.name }) : t("settings.addPerson");
  function submit() {
    const other = organisation.trim() === "" ? null : organisation.trim();
    if (person) change.mutate({ id: person.id, change: { roles }, passphrase });
    else add.mutate({ person: { name: name.trim(), roles, organisation: other }, passphrase });
    setPassphrase("");
  }
  return (
    <Over title={title} isOpen isTyped onClose={onClose}>
      <Form
        className={confirm.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        {!person && (
          <>
            <Field
              label={t("settings.name")}
              help={t("settings.nameHelp")}
              name="person"
              value={name}
              onChange={setName}
            />
            <Field
              label={t("settings.otherOrganisation")}
              help={t("settings.otherOrganisationHelp")}
              name="organisation"
              value={organisation}
              onChange={setOrganisation}
              isOptional
            />
          </>
        )}
        <Checks
          label={t("settings.roles")}
          value={roles}
          onChange={setRoles}
          options={ROLES.map((role) => ({
            value: role,
            label: t(`words.role.${role}`),
            help: t(`settings.roleHelp.${role}`),
          }))}
        />
        <SigningField value={passphrase} onChange={setPassphrase} />
        <FaultNotice fault={add.error ?? change.error} />
        <div className={confirm.actions}>
          <Button onPress={onClose}>{t("parts.cancel")}</Button>
          <Button type="submit" kind="primary" isPending={add.isPending || change.isPending}>
            {person ? t("settings.setRoles") : t("settings.add")}
          </Button>
        </div>
      </Form>
    </Over>
  );
}
