import { useId } from "react";
import { Label, Slider, SliderOutput, SliderThumb, SliderTrack } from "react-aria-components";
import styles from "./Range.module.css";

interface Props {
  label: string;
  help?: string;
  value: number;
  onChange: (value: number) => void;
  least: number;
  most: number;
  step?: number;
  /** The value as it is read: a share in percent, say. */
  shown: string;
}

/** A number on a scale: by mouse, or by arrows, Page up and down, Home and End. */
export function Range({ label, help, value, onChange, least, most, step = 1, shown }: Props) {
  const id = useId();
  return (
    <Slider
      className={styles.range ?? ""}
      minValue={least}
      maxValue={most}
      step={step}
      value={value}
      onChange={(chosen) => onChange(Number(chosen))}
    >
      <div className={styles.head}>
        <Label className={styles.label ?? ""}>{label}</Label>
        <SliderOutput className={styles.output ?? ""}>{shown}</SliderOutput>
      </div>
      {help && (
        <div id={id} className={styles.help}>
          {help}
        </div>
      )}
      <SliderTrack className={styles.track ?? ""}>
        <SliderThumb {...(help ? { "aria-describedby": id } : {})} className={styles.thumb ?? ""} />
      </SliderTrack>
    </Slider>
  );
}
