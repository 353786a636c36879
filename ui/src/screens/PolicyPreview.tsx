import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "wouter";
import { Engine } from "../i18n/engine";
import { useFollowing } from "../ipc/hooks";
import type { EndedApproval, PolicyChange, PolicyPreview as Preview } from "../ipc/types";
import { Answered } from "../parts/Answered";
import { Notice } from "../parts/Notice";
import { EffectBadge } from "../parts/states";
import { Table } from "../parts/Table";
import forms from "./Forms.module.css";

/** How long a person stops typing before the engine is asked, in milliseconds. */
const STILL_MS = 400;

/** What a changed policy would do, as the engine says: asked while it is written, and deciding nothing. */
export function PolicyPreview({ toml }: { toml: string }) {
  const { t } = useTranslation();
  const [asked, setAsked] = useState(toml);
  useEffect(() => {
    const timer = setTimeout(() => setAsked(toml), STILL_MS);
    return () => clearTimeout(timer);
  }, [toml]);
  const preview = useFollowing("policy_preview", { toml: asked });
  return (
    <section aria-label={t("settings.preview")} className={forms.form}>
      <div>
        <h3>{t("settings.preview")}</h3>
        <p className={forms.quiet}>{t("settings.previewLead")}</p>
      </div>
      <Answered of={preview}>
        {(preview) =>
          preview.changes.length === 0 ? (
            <p>{t("parts.noChange")}</p>
          ) : (
            <>
              <Weight of={preview} />
              <Changes changes={preview.changes} />
              {preview.loosens.length > 0 && <Allows words={preview.loosens} />}
              <Ends ends={preview.ends} />
            </>
          )
        }
      </Answered>
    </section>
  );
}

/** Whether it can be set at all, and whether one signature is enough. */
export function Weight({ of }: { of: Preview }) {
  const { t } = useTranslation();
  if (of.below.length > 0) {
    return (
      <Notice weight="attention" title={t("managed.below")}>
        <p>{t("managed.belowHelp")}</p>
        <Words words={of.below} />
      </Notice>
    );
  }
  if (of.needs_second_signature) {
    return (
      <Notice weight="attention" title={t("settings.previewLoosens")}>
        {t("settings.previewLoosensHelp")}
      </Notice>
    );
  }
  return of.loosens.length > 0 ? (
    <Notice weight="attention" title={t("settings.previewLoosensSetUp")}>
      {t("settings.previewSetUpHelp")}
    </Notice>
  ) : (
    <Notice weight="good" title={t("settings.previewTightens")}>
      {t("settings.previewTightensHelp")}
    </Notice>
  );
}

/** What loosens stands first. */
const ORDER = { loosens: 0, tightens: 1, neither: 2 };

function Changes({ changes }: { changes: PolicyChange[] }) {
  const { t } = useTranslation();
  return (
    <Table
      label={t("settings.policyChanges")}
      items={[...changes].sort((a, b) => ORDER[a.effect] - ORDER[b.effect])}
      id={(change) => change.place}
      columns={[
        { key: "place", name: t("settings.place"), cell: (change) => <code>{change.place}</code> },
        { key: "before", name: t("settings.before"), cell: (change) => change.before ?? t("parts.isGone") },
        { key: "after", name: t("settings.after"), cell: (change) => change.after ?? t("parts.isGone") },
        {
          key: "effect",
          name: t("settings.effect"),
          cell: (change) => <EffectBadge effect={change.effect} />,
        },
      ]}
    />
  );
}

function Allows({ words }: { words: string[] }) {
  const { t } = useTranslation();
  return (
    <div>
      <h4>{t("settings.allows")}</h4>
      <Words words={words} />
    </div>
  );
}

function Words({ words }: { words: string[] }) {
  return (
    <ul>
      {words.map((sentence) => (
        <li key={sentence}>
          <Engine>{sentence}</Engine>
        </li>
      ))}
    </ul>
  );
}

/** Approvals that would stop holding. */
function Ends({ ends }: { ends: EndedApproval[] }) {
  const { t } = useTranslation();
  return (
    <div>
      {ends.length === 0 ? (
        <p>{t("settings.endsNone")}</p>
      ) : (
        <Notice weight="attention" title={t("settings.ends", { count: ends.length })}>
          <p>{t("settings.endsHelp")}</p>
          <ul>
            {ends.map((ended) => (
              <li key={ended.study}>
                <Link href={`/requests/${ended.study}`}>{ended.title}</Link>
                {ended.running > 0 && <> ({t("settings.endsRuns", { count: ended.running })})</>}
              </li>
            ))}
          </ul>
        </Notice>
      )}
      <p className={forms.small}>{t("settings.judgedAgain")}</p>
    </div>
  );
}
