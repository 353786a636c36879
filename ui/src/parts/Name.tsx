import { useTranslation } from "react-i18next";
import { list } from "../i18n/format";
import { visible, within } from "../i18n/visible";
import { useAnswer } from "../ipc/hooks";
import type { NameMark, NameOf } from "../ipc/types";
import { Icon } from "./Icon";
import styles from "./Name.module.css";
import { Notice } from "./Notice";

interface Props {
  /** What it is the name of. */
  of: NameOf;
  children: string;
  marks?: NameMark[];
}

/** A name from outside: what is hidden in it is shown, its direction changes nothing beside it, and where people may take
 * it for another name, that is said. */
export function Name({ of, children: name, marks = [] }: Props) {
  const mark = marks.find((mark) => mark.of === of && mark.name === name);
  return (
    <>
      <bdi>{visible(name)}</bdi>
      {mark && (
        <span className={styles.mark}>
          <Icon name="alarm" size={14} />
          <span>
            <Likeness mark={mark} />
          </span>
        </span>
      )}
    </>
  );
}

/** Why a name is marked, in a sentence without the name. */
export function Likeness({ mark: { like, letters } }: { mark: NameMark }) {
  const { t } = useTranslation();
  const which = list(letters.map(within));
  return like === null
    ? t("parts.mixesLetters", { letters: which })
    : t("parts.looksLike", { name: within(like), letters: which });
}

/** Says that a name which stands as a heading may be taken for another; nothing where it is not. */
export function Marked({ of, children: name }: Omit<Props, "marks">) {
  const marks = useNameMarks();
  const isMarked = marks.some((mark) => mark.of === of && mark.name === name);
  return isMarked ? (
    <Notice weight="attention">
      <Name of={of} marks={marks}>
        {name}
      </Name>
    </Notice>
  ) : null;
}

/** Marks of the names of people, federations and their members. */
export function useNameMarks(): NameMark[] {
  return useAnswer("name_marks", {}).data ?? [];
}
