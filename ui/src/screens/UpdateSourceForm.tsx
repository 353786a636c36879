import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import type { UpdateSource, UpdatesView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import forms from "./Forms.module.css";

interface Props {
  updates: UpdatesView;
  onSet: (source: UpdateSource | null) => void;
}

/** Where an administrator wants newer versions looked for; it is off until somebody sets it. */
export function UpdateSourceForm({ updates, onSet }: Props) {
  const { t } = useTranslation();
  const { source, by_it: isFixed } = updates;
  const [url, setUrl] = useState(source?.url ?? "");
  const [key, setKey] = useState(source?.key ?? "");
  return (
    <Form
      className={forms.form ?? ""}
      onSubmit={(event) => {
        event.preventDefault();
        onSet({ url, key });
      }}
    >
      {isFixed && <Notice>{t(source ? "updates.byIt" : "updates.off")}</Notice>}
      <Field
        label={t("updates.url")}
        help={t("updates.urlHelp")}
        name="url"
        value={url}
        onChange={setUrl}
        isDisabled={isFixed}
      />
      <Field
        label={t("updates.key")}
        help={t("updates.keyHelp")}
        name="key"
        value={key}
        onChange={setKey}
        isDisabled={isFixed}
        isMono
      />
      {!isFixed && (
        <div className={forms.actions}>
          <Button type="submit" kind="primary">
            {t("updates.set")}
          </Button>
          {source && <Button onPress={() => onSet(null)}>{t("updates.stop")}</Button>}
        </div>
      )}
    </Form>
  );
}
