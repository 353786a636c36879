import { useTranslation } from "react-i18next";
import { weekday } from "../i18n/format";
import { Button } from "../parts/Button";
import { Checks } from "../parts/Checks";
import { Field } from "../parts/Field";
import { minutesOf, WEEKDAYS, type Window } from "./limits";
import styles from "./QuietWindow.module.css";

interface Props {
  window: Window;
  /** Counts them, from 1. */
  at: number;
  /** The hospital's IT set it. */
  isManaged: boolean;
  onChange: (window: Window) => void;
  onRemove: () => void;
}

/** Hours of some days in which nothing is computed. */
export function QuietWindow({ window, at, isManaged, onChange, onRemove }: Props) {
  const { t } = useTranslation();
  const name = t("machine.window", { at });
  const [from, to] = [minutesOf(window.from), minutesOf(window.to)];
  const isOver = from !== null && to !== null && to <= from;
  return (
    <fieldset className={styles.window}>
      <legend className="hidden">{name}</legend>
      <Checks
        label={t("machine.days")}
        isWide
        isDisabled={isManaged}
        value={window.days}
        onChange={(days) => onChange({ ...window, days })}
        options={WEEKDAYS.map((day, i) => ({ value: day, label: weekday(i) }))}
      />
      <div className={styles.times}>
        <Field
          label={t("machine.from")}
          name={`from${at}`}
          type="time"
          isDisabled={isManaged}
          value={window.from}
          onChange={(time) => onChange({ ...window, from: time })}
        />
        <Field
          label={t(isOver ? "machine.toNext" : "machine.to")}
          name={`to${at}`}
          type="time"
          isDisabled={isManaged}
          value={window.to}
          onChange={(time) => onChange({ ...window, to: time })}
        />
        <Button kind="quiet" about={name} isDisabled={isManaged} onPress={onRemove}>
          {t("machine.remove")}
        </Button>
      </div>
      {isManaged && <p className={styles.managed}>{t("managed.byIt")}</p>}
    </fieldset>
  );
}
