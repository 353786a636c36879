import { useTranslation } from "react-i18next";
import { bytes } from "../i18n/format";
import { useAction } from "../ipc/hooks";
import type { Chosen, OpenPurpose } from "../ipc/types";
import { Button } from "../parts/Button";
import { FaultNotice } from "../parts/FaultNotice";
import forms from "./Forms.module.css";

interface Props {
  purpose: OpenPurpose;
  words: string;
  chosen: Chosen | null;
  onChosen: (chosen: Chosen) => void;
  isDisabled?: boolean;
}

/** Asks for a file or folder in the app's own dialog. The page learns its name, never where it lies (invariant I6). */
export function ChooseFile({ purpose, words, chosen, onChosen, isDisabled = false }: Props) {
  const { t } = useTranslation();
  const choose = useAction("choose_file", (file) => {
    // A dialog that was closed changes nothing.
    if (file) onChosen(file);
  });
  return (
    <>
      <div className={forms.chosen}>
        <Button
          isPending={choose.isPending}
          isDisabled={isDisabled}
          onPress={() => choose.mutate({ purpose })}
        >
          {words}
        </Button>
        <span role="status">
          {chosen && (
            <>
              <span className="hidden">{t("files.chosen")}</span> <code>{chosen.name}</code>
              {chosen.bytes !== null && ` (${bytes(chosen.bytes)})`}
            </>
          )}
        </span>
      </div>
      <FaultNotice fault={choose.error} />
    </>
  );
}
