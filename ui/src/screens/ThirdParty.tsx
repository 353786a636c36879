import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Answered } from "../parts/Answered";
import { Button } from "../parts/Button";
import { Field } from "../parts/Field";
import { LongList } from "../parts/LongList";
import { Over } from "../parts/Over";
import forms from "./Forms.module.css";
import { having, type Library, thirdParty } from "./licences";
import styles from "./ThirdParty.module.css";

/** Every library of others in the programs: its version, its licence, and the texts that come with it. */
export function ThirdParty() {
  const all = useQuery({
    queryKey: ["third party"],
    queryFn: thirdParty,
    staleTime: Number.POSITIVE_INFINITY,
  });
  return <Answered of={all}>{(libraries) => <Libraries all={libraries} />}</Answered>;
}

function Libraries({ all }: { all: Library[] }) {
  const { t } = useTranslation();
  const [words, setWords] = useState("");
  const [read, setRead] = useState<Library | null>(null);
  const found = having(all, words);
  return (
    <>
      <div className={styles.search}>
        <Field
          label={t("settings.searchLibraries")}
          name="libraries"
          value={words}
          onChange={setWords}
          isOptional
        />
        <p role="status" className={forms.small}>
          {t("settings.librariesFound", { count: found.length })}
        </p>
      </div>
      <LongList
        // A list of other rows begins at its top.
        key={words}
        label={t("settings.packages")}
        items={found}
        id={nameOf}
        total={found.length}
        onEnd={() => {}}
        columns={[
          { key: "name", name: t("settings.package"), width: "minmax(0, 1.4fr)", cell: (l) => l.name },
          { key: "version", name: t("datasets.version"), width: "minmax(0, 1fr)", cell: (l) => l.version },
          {
            key: "licence",
            name: t("settings.licenceOf"),
            width: "minmax(0, 1.6fr)",
            cell: (l) => l.licence,
          },
          {
            key: "read",
            name: t("settings.licenceText"),
            width: "112px",
            cell: (l) => (
              <Button kind="quiet" about={nameOf(l)} onPress={() => setRead(l)}>
                {t("settings.readLicence")}
              </Button>
            ),
          },
        ]}
      />
      <Over title={read ? nameOf(read) : ""} isOpen={read !== null} isWide onClose={() => setRead(null)}>
        <p>{read?.licence}</p>
        {read && <Texts of={read} />}
        <div className={forms.actions}>
          <Button onPress={() => setRead(null)}>{t("settings.closeLicence")}</Button>
        </div>
      </Over>
    </>
  );
}

const nameOf = ({ name, version }: Library) => `${name} ${version}`;

function Texts({ of }: { of: Library }) {
  const { t } = useTranslation();
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for forms
    <div role="group" tabIndex={0} lang="en" className={styles.texts} aria-label={t("settings.licenceText")}>
      {of.texts.map((text) => (
        <pre key={text} className={styles.text}>
          {text}
        </pre>
      ))}
    </div>
  );
}
