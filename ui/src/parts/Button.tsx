import { Button as Base, type ButtonProps } from "react-aria-components";
import styles from "./Button.module.css";
import { Icon, type IconName } from "./Icon";

export type Kind = "primary" | "plain" | "quiet" | "danger";

interface Props extends Omit<ButtonProps, "className" | "children"> {
  children: string;
  kind?: Kind;
  icon?: IconName;
  /** Only the picture is seen; the words are its name. */
  isBare?: boolean;
}

/** A button: one primary on a screen, danger for alarms and for what cannot be undone. */
export function Button({ children, kind = "plain", icon, isBare = false, ...rest }: Props) {
  const name = isBare ? { "aria-label": children } : {};
  return (
    <Base {...rest} {...name} className={`${styles.button} ${styles[kind]} ${isBare ? styles.bare : ""}`}>
      {icon && <Icon name={icon} size={18} />}
      {!isBare && <span>{children}</span>}
    </Base>
  );
}
