import { useEffect } from "react";
import { useTranslation } from "react-i18next";
import { useLocation } from "wouter";
import { Page } from "../parts/Page";
import { Sections } from "../parts/Sections";
import { seePolicy } from "../shell/preferences";
import { About } from "./About";
import { Account } from "./Account";
import { Backups } from "./Backups";
import { Looks } from "./Looks";
import { Machine } from "./Machine";
import { PeopleSettings } from "./PeopleSettings";
import { PolicySettings } from "./PolicySettings";
import { StopSettings } from "./StopSettings";
import { Updates } from "./Updates";

const PARTS = [
  "people",
  "policy",
  "machine",
  "backup",
  "updates",
  "account",
  "window",
  "stop",
  "about",
] as const;

/** Settings of the site, of the person, and of this window. */
export function Settings({ part }: { part: string }) {
  const { t } = useTranslation();
  const [, go] = useLocation();
  const contents = {
    people: <PeopleSettings />,
    policy: <PolicySettings />,
    machine: <Machine />,
    backup: <Backups />,
    updates: <Updates />,
    account: <Account />,
    window: <Looks />,
    stop: <StopSettings />,
    about: <About />,
  };
  const selected = PARTS.find((known) => known === part) ?? "people";
  useEffect(() => {
    if (selected === "policy") seePolicy();
  }, [selected]);
  return (
    <Page title={t("settings.title")}>
      <Sections
        label={t("settings.title")}
        selected={selected}
        onSelect={(id) => go(`/settings/${id}`)}
        sections={PARTS.map((id) => ({ id, name: t(`settings.${id}`), content: contents[id] }))}
      />
    </Page>
  );
}
