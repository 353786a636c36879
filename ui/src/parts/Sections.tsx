import type { ReactNode } from "react";
import { Tab, TabList, TabPanel, Tabs } from "react-aria-components";
import styles from "./Sections.module.css";

export interface Section {
  id: string;
  name: string;
  /** How many things in it want to be read. */
  count?: number;
  content: ReactNode;
}

interface Props {
  label: string;
  sections: Section[];
  selected?: string;
  onSelect?: (id: string) => void;
}

/** Parts of a screen of which one is shown. */
export function Sections({ label, sections, selected, onSelect }: Props) {
  const chosen = selected === undefined ? {} : { selectedKey: selected };
  return (
    <Tabs {...chosen} onSelectionChange={(key) => onSelect?.(String(key))} className={styles.tabs ?? ""}>
      <TabList aria-label={label} className={styles.list ?? ""}>
        {sections.map((section) => (
          <Tab key={section.id} id={section.id} className={styles.tab ?? ""}>
            {section.name}
            {section.count !== undefined && section.count > 0 && (
              <span className={styles.count}>{section.count}</span>
            )}
          </Tab>
        ))}
      </TabList>
      {sections.map((section) => (
        <TabPanel key={section.id} id={section.id} className={styles.panel ?? ""}>
          {section.content}
        </TabPanel>
      ))}
    </Tabs>
  );
}
