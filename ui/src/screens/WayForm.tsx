import { useState } from "react";
import { Form } from "react-aria-components";
import { useTranslation } from "react-i18next";
import { useAction } from "../ipc/hooks";
import type { Chosen, NewWay, WayView } from "../ipc/types";
import { Button } from "../parts/Button";
import { Choice } from "../parts/Choice";
import { Confirm } from "../parts/Confirm";
import { Field } from "../parts/Field";
import { Notice } from "../parts/Notice";
import { ChooseFile } from "./ChooseFile";
import { Tested } from "./Diagnosis";
import forms from "./Forms.module.css";

type Proxy = "keep" | "usual" | "url";
type Certificates = "keep" | "usual" | "file";

/** Another way to a coordinator: tested, and kept if every step goes well or where somebody says why all the same. */
export function WayForm({ way }: { way: WayView }) {
  const { t } = useTranslation();
  const [proxy, setProxy] = useState<Proxy>("keep");
  const [address, setAddress] = useState("");
  const [certificates, setCertificates] = useState<Certificates>("keep");
  const [file, setFile] = useState<Chosen | null>(null);
  const [isAsking, setAsking] = useState(false);
  const tried = useAction("set_way", ({ kept }) => {
    setAsking(false);
    if (!kept) return;
    // What was typed may hold a password, and is in use now.
    setProxy("keep");
    setAddress("");
    setCertificates("keep");
    setFile(null);
  });
  // What was found on another way says nothing about this one.
  function change<T>(set: (value: T) => void, value: T) {
    set(value);
    tried.reset();
  }
  const isWhole = (proxy !== "url" || address.trim() !== "") && (certificates !== "file" || file !== null);
  const isAnother = proxy !== "keep" || certificates !== "keep";
  function attempt(despite: string | null) {
    const next: NewWay = {
      federation: way.federation,
      proxy: proxy === "url" ? { url: address.trim() } : proxy,
      extra_ca: certificates === "file" ? { file: file?.file ?? "" } : certificates,
    };
    tried.mutate({ way: next, despite });
  }
  const isRefused = tried.data?.kept === false;
  return (
    <>
      <Form
        className={forms.form ?? ""}
        onSubmit={(event) => {
          event.preventDefault();
          if (isWhole && isAnother) attempt(null);
        }}
      >
        <Choice
          label={t("network.newProxy")}
          value={proxy}
          onChange={(value) => change(setProxy, value)}
          options={[
            { value: "keep", label: t("network.keep") },
            { value: "usual", label: t("network.noProxy"), help: t("network.noProxyHelp") },
            { value: "url", label: t("network.another") },
          ]}
        />
        {proxy === "url" && (
          <Field
            label={t("network.address")}
            help={t("network.addressHelp")}
            name="address"
            value={address}
            onChange={(text) => change(setAddress, text)}
          />
        )}
        <Choice
          label={t("network.newCertificates")}
          value={certificates}
          onChange={(value) => change(setCertificates, value)}
          options={[
            { value: "keep", label: t("network.keep") },
            { value: "usual", label: t("network.noFile"), help: t("network.noFileHelp") },
            { value: "file", label: t("network.fromFile") },
          ]}
        />
        {certificates === "file" && (
          <ChooseFile
            purpose="certificates"
            words={t("join.chooseCertificates")}
            chosen={file}
            onChosen={(chosen) => change(setFile, chosen)}
          />
        )}
        <div className={forms.actions}>
          <Button
            type="submit"
            kind="primary"
            about={way.name}
            isPending={tried.isPending}
            isDisabled={!isWhole || !isAnother}
          >
            {t("network.attempt")}
          </Button>
        </div>
        <p className={forms.small}>{t("network.attemptHelp")}</p>
        <Tested isPending={tried.isPending} data={tried.data?.steps} error={tried.error} />
        <div role="status">
          {tried.data?.kept && <Notice weight="good">{t("network.kept")}</Notice>}
          {isRefused && (
            <Notice
              weight="attention"
              title={t("network.notKept")}
              beside={
                <Button about={way.name} onPress={() => setAsking(true)}>
                  {t("network.force")}
                </Button>
              }
            >
              {t("network.notKeptHelp")}
            </Notice>
          )}
        </div>
      </Form>
      <Confirm
        title={t("network.force")}
        yes={t("network.force")}
        isDangerous
        reason={t("approvals.reason")}
        isOpen={isAsking}
        action={{ isPending: tried.isPending, error: tried.error, reset: () => {} }}
        onClose={() => setAsking(false)}
        onYes={({ reason }) => attempt(reason)}
      >
        <p>{t("network.forceHelp")}</p>
      </Confirm>
    </>
  );
}
