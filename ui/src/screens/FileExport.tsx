import { useState } from "react";
import { useTranslation } from "react-i18next";
import { beginning } from "../i18n/visible";
import { useAction, useManaged } from "../ipc/hooks";
import type { Chosen, Digest, Fault, SavePurpose } from "../ipc/types";
import { Button } from "../parts/Button";
import { DigestChip } from "../parts/DigestChip";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import forms from "./Forms.module.css";

/** Characters of a study's title in the name that the dialog begins with. */
const TITLE_CHARS = 60;

interface Written {
  name: string;
  bytes: number;
  digest: Digest;
}

interface Props {
  /** What is written: the button's words, and what they are about where several stand below each other. */
  label: string;
  about?: string;
  kind?: "primary" | "plain";
  purpose: SavePurpose;
  /** Title of the study, and what the file's name ends with. */
  title: string;
  ending: string;
  writing: { isPending: boolean; error: Fault | null; reset: () => void };
  write: (chosen: Chosen, done: (written: Omit<Written, "name">) => void) => void;
  /** What is said of the file. */
  said: (written: Written) => { title: string; help: string };
}

/** Writes what was released to the chosen place, where no rule of the machine forbids it, and says what was written. */
export function FileExport(props: Props) {
  const { label, about, kind = "plain", purpose, title, ending, writing, write, said } = props;
  const { t } = useTranslation();
  const [written, setWritten] = useState<Written | null>(null);
  const { no_export: isManaged = false } = useManaged();
  const choose = useAction("choose_place", (chosen) => {
    // A dialog that was closed changes nothing.
    if (chosen) write(chosen, ({ bytes, digest }) => setWritten({ name: chosen.name, bytes, digest }));
  });
  const words = written && said(written);
  return (
    <>
      <div className={forms.actions}>
        <Button
          {...(about === undefined ? {} : { about })}
          kind={kind}
          isPending={choose.isPending || writing.isPending}
          isDisabled={isManaged}
          onPress={() => {
            setWritten(null);
            writing.reset();
            choose.mutate({ purpose, suggested: `${beginning(title, TITLE_CHARS)}-${ending}` });
          }}
        >
          {label}
        </Button>
      </div>
      {isManaged && <p className={forms.small}>{t("managed.exportHelp")}</p>}
      <FaultNotice fault={choose.error ?? writing.error} />
      <div role="status">
        {written && words && (
          <Notice weight="good" title={words.title}>
            <p>{words.help}</p>
            <div className={forms.small}>{t("models.exportedDigest")}</div>
            <DigestChip digest={written.digest} of={t("models.exportedDigest")} />
          </Notice>
        )}
      </div>
    </>
  );
}
