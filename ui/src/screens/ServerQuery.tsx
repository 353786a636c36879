import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useAction, useAnswer } from "../ipc/hooks";
import type { DatabaseView, Step } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Picker } from "../parts/Picker";
import { ConnectDatabase } from "./ConnectDatabase";
import { Tested } from "./Diagnosis";
import forms from "./Forms.module.css";
import { QueryField } from "./QueryField";
import type { Source } from "./register";

interface Props {
  source: Source | null;
  isBusy: boolean;
  onChosen: (chosen: Source) => void;
}

/** A query in a database on a server: one that is known, or one that is connected now. */
export function ServerQuery({ source, isBusy, onChosen }: Props) {
  const { t } = useTranslation();
  const databases = useAnswer("databases", {});
  const [id, setId] = useState<string | null>(source?.query?.database ?? null);
  const [isConnecting, setConnecting] = useState(false);
  const [steps, setSteps] = useState<Step[]>();
  const test = useAction("test_database", setSteps);
  const forget = useAction("forget_database", () => setId(null));
  function choose(chosen: string | null) {
    setId(chosen);
    setSteps(undefined);
    setConnecting(false);
  }
  function connected(known: DatabaseView, steps: Step[]) {
    choose(known.id);
    setSteps(steps);
  }
  return (
    <Answered of={databases}>
      {(all) => {
        const chosen = all.find((database) => database.id === id);
        return (
          <>
            {all.length > 0 && (
              <Picker
                label={t("database.which")}
                placeholder={t("database.choose")}
                options={all.map((database) => ({
                  value: database.id,
                  label: database.name,
                  help: t("database.place", { ...database, port: String(database.port) }),
                }))}
                value={chosen ? chosen.id : null}
                isDisabled={isBusy}
                onChange={choose}
              />
            )}
            {all.length > 0 && (
              <div className={forms.actions}>
                {chosen && (
                  <Button isPending={test.isPending} onPress={() => test.mutate({ database: chosen.id })}>
                    {t("database.test")}
                  </Button>
                )}
                {chosen && (
                  <Button
                    kind="quiet"
                    isPending={forget.isPending}
                    onPress={() => forget.mutate({ database: chosen.id })}
                  >
                    {t("database.forget")}
                  </Button>
                )}
                <Button kind="quiet" isDisabled={isConnecting} onPress={() => setConnecting(true)}>
                  {t("database.another")}
                </Button>
              </div>
            )}
            {(isConnecting || all.length === 0) && <ConnectDatabase onConnected={connected} />}
            <Tested isPending={test.isPending} data={steps} error={test.error ?? forget.error} />
            {chosen && !isConnecting && (
              <QueryField
                key={chosen.id}
                asked={source?.query?.database === chosen.id ? source.query.text : ""}
                isBusy={isBusy}
                onAsk={(text) =>
                  onChosen({
                    path: "",
                    name: chosen.name,
                    bytes: null,
                    query: { database: chosen.id, text },
                  })
                }
              />
            )}
          </>
        );
      }}
    </Answered>
  );
}
