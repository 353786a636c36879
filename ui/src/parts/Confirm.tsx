import { type ReactNode, useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import type { Fault } from "../ipc/types";
import { Button } from "./Button";
import styles from "./Confirm.module.css";
import { FaultNotice } from "./FaultNotice";
import { Field } from "./Field";
import { Over } from "./Over";
import { SigningField } from "./SigningField";

interface Action {
  isPending: boolean;
  error: Fault | null;
  reset: () => void;
}

interface Props {
  title: string;
  /** What happens on each answer. */
  children: ReactNode;
  yes: string;
  isDangerous?: boolean;
  /** Label of the reason that must be given. */
  reason?: string;
  /** Whether the person signs with their passphrase. */
  isSigned?: boolean;
  action: Action;
  isOpen: boolean;
  onClose: () => void;
  onYes: (given: { reason: string; passphrase: string }) => void;
}

/** Asks before something is done; what it needs, a reason or a signature, is asked at the same place. */
export function Confirm(props: Props) {
  const { title, reason, isSigned = false, action, isOpen, onClose } = props;
  function close() {
    action.reset();
    onClose();
  }
  return (
    <Over title={title} isOpen={isOpen} isTyped={reason !== undefined || isSigned} onClose={close}>
      <Question {...props} onClose={close} />
    </Over>
  );
}

/** It is there only while it is asked: the next question begins with nothing typed. */
function Question({ children, yes, isDangerous, reason: label, isSigned, action, onClose, onYes }: Props) {
  const { t } = useTranslation();
  const [reason, setReason] = useState("");
  const [passphrase, setPassphrase] = useState("");
  return (
    <Form
      className={styles.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        onYes({ reason: reason.trim(), passphrase });
        setPassphrase("");
      }}
    >
      {children}
      {label && <Field autoFocus label={label} name="reason" value={reason} onChange={setReason} rows={3} />}
      {isSigned && <SigningField value={passphrase} onChange={setPassphrase} autoFocus={!label} />}
      <FaultNotice fault={action.error} />
      <div className={styles.actions}>
        <Button onPress={onClose}>{t("parts.cancel")}</Button>
        <Button type="submit" kind={isDangerous ? "danger" : "primary"} isPending={action.isPending}>
          {yes}
        </Button>
      </div>
    </Form>
  );
}
