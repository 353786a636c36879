import { useState } from "react";
import { useTranslation } from "react-i18next";
import type { Chosen } from "../ipc/types";
import { ChooseFile } from "./ChooseFile";
import forms from "./Forms.module.css";
import { QueryField } from "./QueryField";
import type { Source } from "./register";

interface Props {
  source: Source | null;
  isBusy: boolean;
  onChosen: (chosen: Source) => void;
}

/** A query in a file of SQLite. */
export function SqliteQuery({ source, isBusy, onChosen }: Props) {
  const { t } = useTranslation();
  const before = source?.query?.database === null ? source : null;
  const [file, setFile] = useState<Chosen | null>(before && { ...before, file: before.path });
  return (
    <>
      <ChooseFile
        purpose="data"
        words={t("register.chooseFile")}
        chosen={file}
        onChosen={setFile}
        isDisabled={isBusy}
      />
      <p className={forms.small}>{t("database.sqliteHelp")}</p>
      {file && (
        <QueryField
          asked={before?.query?.text ?? ""}
          isBusy={isBusy}
          onAsk={(text) =>
            onChosen({
              path: file.file,
              name: file.name,
              bytes: file.bytes,
              query: { database: null, text },
            })
          }
        />
      )}
    </>
  );
}
