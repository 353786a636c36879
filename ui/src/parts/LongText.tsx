import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { count } from "../i18n/format";
import { visible } from "../i18n/visible";
import { Button } from "./Button";
import styles from "./LongText.module.css";

/** Characters of a text that are shown before anybody asks for all of it. */
const FOLDED_CHARS = 800;

/** The beginning of a text, not cut within a character. */
function beginning(text: string): string {
  const last = text.charCodeAt(FOLDED_CHARS - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? FOLDED_CHARS - 1 : FOLDED_CHARS);
}

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
      {words(isOpen ? text : `${beginning(text)}…`)}
      <span className={styles.more}>
        <Button kind="quiet" aria-expanded={isOpen} onPress={() => setOpen(!isOpen)}>
          {isOpen ? t("parts.showLess") : t("parts.showAll", { all: count(text.length) })}
        </Button>
      </span>
    </>
  );
}
