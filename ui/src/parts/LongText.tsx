import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { count } from "../i18n/format";
import { beginning, visible } from "../i18n/visible";
import { Button } from "./Button";
import styles from "./LongText.module.css";

/** Characters of a text that are shown before anybody asks for all of it. */
const FOLDED_CHARS = 800;

interface Props {
  children: string;
  /** Somebody stated it, in words of their own: it is shown as it is, also where it reads like a sentence of the engine. */
  isStated?: boolean;
}

/** Words of the engine, which may repeat a text from outside: a long one is folded, so that what follows is not out of sight. */
export function LongText({ children: text, isStated = false }: Props) {
  const { t } = useTranslation();
  const [isOpen, setOpen] = useState(false);
  const words = (shown: string) => (isStated ? visible(shown) : <Engine>{shown}</Engine>);
  if (text.length <= FOLDED_CHARS) return words(text);
  return (
    <>
      {words(isOpen ? text : `${beginning(text, FOLDED_CHARS)}…`)}
      <span className={styles.more}>
        <Button kind="quiet" aria-expanded={isOpen} onPress={() => setOpen(!isOpen)}>
          {isOpen ? t("parts.showLess") : t("parts.showAll", { all: count(text.length) })}
        </Button>
      </span>
    </>
  );
}
