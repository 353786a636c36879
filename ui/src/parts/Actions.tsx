import { Menu, MenuItem, MenuTrigger, Popover } from "react-aria-components";
import { Button } from "./Button";
import styles from "./Picker.module.css";

interface Props {
  /** Words of the button. */
  name: string;
  /** What the actions are about. */
  about: string;
  actions: { id: string; name: string; onAction: () => void }[];
}

/** Several things that can be done with one row, behind one button. */
export function Actions({ name, about, actions }: Props) {
  return (
    <MenuTrigger>
      <Button about={about} icon="down">
        {name}
      </Button>
      <Popover className={styles.popover ?? ""}>
        <Menu className={styles.list ?? ""} aria-label={`${name}: ${about}`}>
          {actions.map((action) => (
            <MenuItem key={action.id} id={action.id} className={styles.item ?? ""} onAction={action.onAction}>
              {action.name}
            </MenuItem>
          ))}
        </Menu>
      </Popover>
    </MenuTrigger>
  );
}
