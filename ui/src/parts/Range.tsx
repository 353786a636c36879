import { useId } from "react";
import { Label, Slider, SliderOutput, SliderThumb, SliderTrack } from "react-aria-components";
import styles from "./Range.module.css";

interface Props {
  label: string;
  help: string;
  /** Percent. */
  value: number;
  onChange: (value: number) => void;
  least: number;
  step: number;
}

/** A share in percent, up to all of it: by mouse, or by arrows, Page up and down, Home and End. */
export function Range({ label, help, value, onChange, least, step }: Props) {
  const id = useId();
  return (
    <Slider
      className={styles.range ?? ""}
      minValue={least}
      maxValue={100}
      step={step}
      value={value}
      onChange={(chosen) => onChange(Number(chosen))}
      formatOptions={{ style: "unit", unit: "percent" }}
    >
      <div className={styles.head}>
        <Label className={styles.label ?? ""}>{label}</Label>
        <SliderOutput className={styles.output ?? ""} />
      </div>
      <div id={id} className={styles.help}>
        {help}
      </div>
      <SliderTrack className={styles.track ?? ""}>
        <SliderThumb aria-describedby={id} className={styles.thumb ?? ""} />
      </SliderTrack>
    </Slider>
  );
}
