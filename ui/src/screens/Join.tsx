import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useLocation } from "wouter";
import { list, moment } from "../i18n/format";
import { useAction, useManaged } from "../ipc/hooks";
import type { Chosen, InvitationView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Card } from "../parts/Card";
import { Facts } from "../parts/Facts";
import { FaultNotice } from "../parts/FaultNotice";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { Page } from "../parts/Page";
import { ChooseFile } from "./ChooseFile";
import { Tested } from "./Diagnosis";
import forms from "./Forms.module.css";

/** Joins a federation: the invitation, then the coordinator's words by a second way, then the organisation. */
export function Join() {
  const { t } = useTranslation();
  const [invitation, setInvitation] = useState("");
  const [read, setRead] = useState<InvitationView | null>(null);
  const readInvitation = useAction("read_invitation", setRead);
  const { only = null } = useManaged();
  return (
    <Page
      title={t("join.title")}
      lead={t("join.lead")}
      back={{ to: "/federations", words: t("federations.all") }}
    >
      <Card title={t("join.step1")} lead={t("join.step1Lead")}>
        {only && (
          <Notice>
            {only.length === 0 ? t("managed.noneHelp") : t("managed.onlyHelp", { places: list(only) })}
          </Notice>
        )}
        <Form
          className={forms.form ?? ""}
          onSubmit={(event) => {
            event.preventDefault();
            readInvitation.mutate({ invitation: invitation.trim() });
          }}
        >
          <Field
            label={t("join.invitation")}
            name="invitation"
            value={invitation}
            onChange={(text) => {
              setInvitation(text);
              setRead(null);
            }}
            rows={4}
            isMono
          />
          <FaultNotice fault={readInvitation.error} />
          <div className={forms.actions}>
            <Button type="submit" kind={read ? "plain" : "primary"} isPending={readInvitation.isPending}>
              {t("join.read")}
            </Button>
          </div>
        </Form>
        {read && (
          <Facts
            isOurs
            facts={[
              { label: t("join.coordinator"), value: read.url },
              { label: t("join.as"), value: read.site },
              { label: t("join.until"), value: moment(read.expires) },
            ]}
          />
        )}
      </Card>
      {read && <Enrol invitation={invitation.trim()} />}
    </Page>
  );
}

function Enrol({ invitation }: { invitation: string }) {
  const { t } = useTranslation();
  const [, go] = useLocation();
  const [words, setWords] = useState("");
  const [organisation, setOrganisation] = useState("");
  const [proxy, setProxy] = useState("");
  const [certificates, setCertificates] = useState<Chosen | null>(null);
  const enrol = useAction("enrol", (membership) => go(`/federations/${membership.federation}`));
  const test = useAction("diagnose_invitation");
  const managed = useManaged();
  const approach = {
    invitation,
    proxy: proxy.trim() === "" ? null : proxy.trim(),
    extra_ca: certificates?.file ?? null,
  };
  // What was found on another way says nothing about this one.
  function change<T>(set: (value: T) => void, value: T) {
    set(value);
    test.reset();
  }
  return (
    <Card title={t("join.step2")} lead={t("join.step2Lead")}>
      <Form
        className={forms.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          // The engine knows by itself whether this site was a member before.
          enrol.mutate({ enrolment: { ...approach, words, organisation, again: null } });
        }}
      >
        <Field
          label={t("join.words")}
          help={t("join.wordsHelp")}
          name="words"
          value={words}
          onChange={setWords}
          rows={3}
          isMono
        />
        <Field
          label={t("join.organisation")}
          help={t("join.organisationHelp")}
          name="organisation"
          value={organisation}
          onChange={setOrganisation}
        />
        <Field
          label={t("join.proxy")}
          help={managed.proxy ? t("managed.proxyHelp", { proxy: managed.proxy }) : t("join.proxyHelp")}
          name="proxy"
          value={proxy}
          onChange={(text) => change(setProxy, text)}
          isOptional
        />
        <div className={forms.form}>
          <div>
            <h3>{t("join.certificates")}</h3>
            <p className={forms.small}>
              {managed.extra_ca
                ? t("managed.certificatesHelp", { file: managed.extra_ca })
                : t("join.certificatesHelp")}
            </p>
          </div>
          <ChooseFile
            purpose="certificates"
            words={t("join.chooseCertificates")}
            chosen={certificates}
            onChosen={(file) => change(setCertificates, file)}
          />
          {certificates && (
            <div>
              <Button kind="quiet" onPress={() => change(setCertificates, null)}>
                {t("join.noCertificates")}
              </Button>
            </div>
          )}
        </div>
        <FaultNotice fault={enrol.error} />
        {enrol.error?.code === "link" && <Notice>{t("join.testAfter")}</Notice>}
        <div className={forms.actions}>
          <Button type="submit" kind="primary" isPending={enrol.isPending}>
            {t("federations.join")}
          </Button>
          <Button isPending={test.isPending} onPress={() => test.mutate({ approach })}>
            {t("federations.diagnose")}
          </Button>
        </div>
        <p className={forms.small}>{t("join.testHelp")}</p>
        <Tested {...test} />
      </Form>
    </Card>
  );
}
