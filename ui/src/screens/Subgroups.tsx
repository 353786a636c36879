import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { count, decimal } from "../i18n/format";
import type { GroupView, ReportView } from "../ipc/types";
import { Picker } from "../parts/Picker";
import { Table } from "../parts/Table";
import forms from "./Forms.module.css";
import { figuresOf, intervalsOf } from "./rounds";

interface Props {
  all: ReportView;
  column: string;
  groups: GroupView[];
  ungrouped: number;
  /** Draws the report of all rows, or of one subgroup. */
  inFull: (report: ReportView) => ReactNode;
}

const WHOLE = "";
/** A choice has to have a name, and no code is named like all rows. */
const key = ({ code }: { code: string }) => `=${code}`;

/** All rows and the codes of one column beside each other, and one of them in full. */
export function Subgroups({ all, column, groups, ungrouped, inFull }: Props) {
  const { t } = useTranslation();
  const [shown, setShown] = useState(key({ code: WHOLE }));
  const chosen = groups.find((group) => key(group) === shown);
  const names = [...figuresOf(all).keys()];
  const whole = {
    code: WHOLE,
    rows: groups.reduce((sum, g) => sum + g.rows, ungrouped),
    leaves: true,
    view: all,
  };
  const title = (group: GroupView) =>
    group.code === WHOLE ? t("models.allRows") : `${column} = ${group.code}`;
  const value = (group: GroupView, name: string) => {
    if (group.view === null) return "–";
    const found = figuresOf(group.view).get(name);
    if (found === undefined || found === null) return t("models.undefined");
    const interval = intervalsOf(group.view)[name];
    return (
      <>
        {decimal(found)}
        {interval && (
          <div className={forms.small}>
            {t("parts.interval", { low: decimal(interval.low), high: decimal(interval.high) })}
          </div>
        )}
      </>
    );
  };
  return (
    <>
      <Table
        label={t("models.subgroups", { column })}
        items={[whole, ...groups]}
        id={key}
        columns={[
          { key: "code", name: t("models.subgroup"), cell: title },
          { key: "rows", name: t("models.rows"), isNumber: true, cell: (g) => count(g.rows) },
          ...names.map((name) => ({
            key: name,
            name: named("words.figure", name),
            isNumber: true,
            cell: (group: GroupView) => value(group, name),
          })),
          {
            key: "leaves",
            name: t("models.leaves"),
            cell: (g) => (g.code === WHOLE ? "–" : t(g.leaves ? "models.leavesYes" : "models.leavesNo")),
          },
        ]}
      />
      <p className={forms.small}>
        {t("models.subgroupsHelp")}
        {ungrouped > 0 && ` ${t("models.ungrouped", { count: ungrouped, column })}`}
      </p>
      <Picker
        label={t("models.inFull")}
        options={[whole, ...groups.filter((group) => group.view !== null)].map((group) => ({
          value: key(group),
          label: title(group),
        }))}
        value={shown}
        onChange={setShown}
      />
      {inFull(chosen?.view ?? all)}
    </>
  );
}
