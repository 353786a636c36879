import { Button as Base, type ButtonProps } from "react-aria-components";
import styles from "./Button.module.css";
import { Icon, type IconName } from "./Icon";

export type Kind = "primary" | "plain" | "quiet" | "danger";

interface Props extends Omit<ButtonProps, "className" | "children" | "isPending"> {
  children: string;
  kind?: Kind;
  icon?: IconName;
  /** What it is about, where several stand below each other: read out after the words. */
  about?: string;
  /** What it began is not over: it keeps the focus and does nothing more meanwhile. */
  isPending?: boolean;
}

/** A button: one primary on a screen, danger for alarms and for what cannot be undone. */
export function Button(props: Props) {
  const { children, kind = "plain", icon, about, isPending = false, onPress, type, ...rest } = props;
  const name = about === undefined ? {} : { "aria-label": `${children}: ${about}` };
  const press = isPending || onPress === undefined ? {} : { onPress };
  return (
    <Base
      {...rest}
      {...name}
      {...press}
      type={isPending ? "button" : (type ?? "button")}
      className={`${styles.button} ${styles[kind]} ${isPending ? styles.pending : ""}`}
    >
      {icon && <Icon name={icon} size={18} />}
      <span>{children}</span>
    </Base>
  );
}
