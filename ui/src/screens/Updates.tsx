import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { bytes, moment } from "../i18n/format";
import { visible } from "../i18n/visible";
import { useAction, useAnswer } from "../ipc/hooks";
import type { Chosen, UpdateFound, UpdatePackage, UpdateSource, UpdatesView } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Confirm } from "../parts/Confirm";
import { Copy } from "../parts/Copy";
import { DigestChip } from "../parts/DigestChip";
import { Facts } from "../parts/Facts";
import { FaultNotice } from "../parts/FaultNotice";
import { Notice } from "../parts/Notice";
import { useMe } from "../shell/session";
import forms from "./Forms.module.css";
import { UpdateSourceForm } from "./UpdateSourceForm";

/** Newer versions of this program: where they are looked for, what was heard, and the way to a package. */
export function Updates() {
  const { t } = useTranslation();
  const { may } = useMe();
  const updates = useAnswer("updates", {});
  // What somebody wants, until they have signed it: nowhere is a source too.
  const [wanted, setWanted] = useState<{ source: UpdateSource | null } | null>(null);
  const set = useAction("set_updates", () => setWanted(null));
  const source = wanted?.source;
  const yes = t(source ? "updates.set" : "updates.stop");
  return (
    <>
      <Card title={t("updates.title")} lead={t("updates.lead")}>
        <Answered of={updates}>{(data) => <Known updates={data} />}</Answered>
      </Card>
      <Card title={t("updates.where")} lead={t("updates.whereLead")}>
        {may("administrator") ? (
          <Answered of={updates}>
            {(data) => (
              <UpdateSourceForm
                key={data.source?.url ?? ""}
                updates={data}
                onSet={(source) => setWanted({ source })}
              />
            )}
          </Answered>
        ) : (
          <Notice>{t("updates.needs")}</Notice>
        )}
        <div role="status">{set.isSuccess && <Notice weight="good">{t("updates.saveDone")}</Notice>}</div>
      </Card>
      <Confirm
        title={yes}
        yes={yes}
        isSigned
        isOpen={wanted !== null}
        action={set}
        onClose={() => setWanted(null)}
        onYes={({ passphrase }) => wanted && set.mutate({ ...wanted, passphrase })}
      >
        <p>{t(source ? "updates.setHelp" : "updates.stopHelp")}</p>
        {source && (
          <Facts
            isOurs
            facts={[
              { label: t("updates.url"), value: source.url },
              { label: t("updates.key"), value: source.key },
            ]}
          />
        )}
      </Confirm>
    </>
  );
}

function Known({ updates }: { updates: UpdatesView }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const check = useAction("check_updates");
  const { running, source, found, tried, trouble } = updates;
  return (
    <>
      <Facts
        isOurs
        facts={[
          { label: t("updates.running"), value: running },
          { label: t("updates.source"), value: source?.url ?? t("updates.nowhere") },
          ...(found ? [{ label: t("updates.heard"), value: moment(found.heard) }] : []),
          ...(tried === null ? [] : [{ label: t("updates.tried"), value: moment(tried) }]),
        ]}
      />
      {trouble !== null && (
        <Notice weight="attention" title={t("updates.trouble")}>
          <Engine>{trouble}</Engine>
        </Notice>
      )}
      {found && <Newest found={found} />}
      <FaultNotice fault={check.error} />
      <div role="status">{check.isPending && <Notice>{t("updates.checking")}</Notice>}</div>
      {source && may("administrator") && (
        <div className={forms.actions}>
          <Button isPending={check.isPending} onPress={() => check.mutate({})}>
            {t("updates.check")}
          </Button>
        </div>
      )}
    </>
  );
}

function Newest({ found }: { found: UpdateFound }) {
  const { t } = useTranslation();
  const { may } = useMe();
  const { version } = found;
  if (!found.is_newer) return <Notice weight="good" title={t("updates.newest", { version })} />;
  return (
    <>
      <Notice weight="attention" title={t("updates.newer", { version })}>
        <p>{t("updates.since", { at: moment(found.issued) })}</p>
        <p className={forms.file}>{visible(found.notes)}</p>
      </Notice>
      {found.package === null ? (
        <p>{t("updates.noPackage")}</p>
      ) : (
        may("administrator") && <Fetcher offered={found.package} />
      )}
    </>
  );
}

/** The way to the package as a file, which gets its name only once it is proven to be the signed one. */
function Fetcher({ offered }: { offered: UpdatePackage }) {
  const { t } = useTranslation();
  const [name, setName] = useState("");
  const save = useAction("save_update");
  const choose = useAction("choose_place", (chosen) => chosen && to(chosen));
  function to({ file, name }: Chosen) {
    setName(name);
    save.mutate({ path: file });
  }
  return (
    <>
      <Facts
        isOurs
        facts={[{ label: t("updates.package"), value: `${offered.file} (${bytes(offered.bytes)})` }]}
      />
      <DigestChip digest={offered.digest} of={t("updates.digest")} />
      <FaultNotice fault={choose.error ?? save.error} />
      <div role="status">
        {save.isPending && <Notice>{t("updates.saving")}</Notice>}
        {save.isSuccess && (
          <Notice weight="good" title={t("updates.saved", { name })}>
            <p>{t("updates.install")}</p>
            <p>
              <code translate="no">{offered.command}</code>{" "}
              <Copy text={offered.command} of={t("updates.command")} />
            </p>
          </Notice>
        )}
      </div>
      <div className={forms.actions}>
        <Button
          isPending={choose.isPending || save.isPending}
          onPress={() => {
            save.reset();
            choose.mutate({ purpose: "update", suggested: offered.file });
          }}
        >
          {t("updates.save")}
        </Button>
      </div>
    </>
  );
}
