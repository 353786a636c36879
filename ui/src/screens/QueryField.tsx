import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Button } from "../parts/Button";
import { Field } from "../parts/Field";
import forms from "./Forms.module.css";

interface Props {
  /** What was asked last. */
  asked: string;
  isBusy: boolean;
  onAsk: (text: string) => void;
}

/** The query, and the button that has its rows looked into. */
export function QueryField({ asked, isBusy, onAsk }: Props) {
  const { t } = useTranslation();
  const [text, setText] = useState(asked);
  return (
    <>
      <Field
        label={t("database.query")}
        help={t("database.queryHelp")}
        name="query"
        rows={6}
        isMono
        isOptional
        value={text}
        onChange={setText}
      />
      <div className={forms.actions}>
        <Button isPending={isBusy} isDisabled={text.trim() === ""} onPress={() => onAsk(text.trim())}>
          {t("database.read")}
        </Button>
      </div>
    </>
  );
}
