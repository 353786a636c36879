import { useTranslation } from "react-i18next";
import { Engine } from "../i18n/engine";
import { count, list } from "../i18n/format";
import type { GapView, SurveyView } from "../ipc/types";
import { Check } from "../parts/Check";
import { Name } from "../parts/Name";
import { Notice } from "../parts/Notice";
import { Picker } from "../parts/Picker";
import { Select } from "../parts/Select";
import { Table } from "../parts/Table";
import { kindWords } from "./kinds";
import { type Draft, isCopied, isImage, KINDS, keptAnyway, kindOf } from "./register";

interface Props {
  survey: SurveyView;
  draft: Draft;
  onChange: (draft: Draft) => void;
}

/** Columns of a file before it is registered: which one tells patients apart, their types, and which are in the copy. */
export function SurveyColumns({ survey: { columns, gaps, marks }, draft, onChange }: Props) {
  const { t } = useTranslation();
  const missing = new Map<string, GapView[]>(columns.map(({ name }) => [name, []]));
  for (const gap of gaps) if (gap.is_missing) missing.get(gap.column)?.push(gap);
  const kept = keptAnyway(draft, columns);
  return (
    <>
      <Picker
        label={t("register.subject")}
        placeholder={t("register.choose")}
        options={columns.filter((c) => !isImage(c)).map(({ name }) => ({ value: name, label: name }))}
        value={draft.subject}
        onChange={(subject) => onChange({ ...draft, subject })}
      />
      <p>{t("register.subjectHelp")}</p>
      <Table
        label={t("datasets.profile")}
        items={columns}
        id={(column) => column.name}
        columns={[
          {
            key: "name",
            name: t("datasets.column"),
            cell: (column) => (
              <code>
                <Name of="column" marks={marks}>
                  {column.name}
                </Name>
              </code>
            ),
          },
          {
            key: "kind",
            name: t("datasets.type"),
            cell: (column) =>
              isImage(column) ? (
                kindWords(t, column.kind)
              ) : (
                <Select
                  label={t("register.kindOf", { column: column.name })}
                  value={kindOf(draft, column)}
                  onChange={(kind) => onChange({ ...draft, kinds: { ...draft.kinds, [column.name]: kind } })}
                  options={KINDS.map((kind) => ({ value: kind, label: kindWords(t, kind) }))}
                />
              ),
          },
          {
            key: "missing",
            name: t("datasets.missing"),
            cell: (column) =>
              missing
                .get(column.name)
                ?.map(({ marker, cells }) => (
                  <div key={marker}>
                    {t("register.gap", { marker: marker || t("register.emptyCell"), cells: count(cells) })}
                  </div>
                )),
          },
          {
            key: "copy",
            name: t("register.copied"),
            cell: (column) => (
              <Check
                label={t("register.copiedOf", { column: column.name })}
                isLabelHidden
                isDisabled={column.name === draft.subject}
                value={isCopied(draft, column)}
                onChange={(isIn) => onChange({ ...draft, copied: { ...draft.copied, [column.name]: isIn } })}
              />
            ),
          },
          {
            key: "findings",
            name: t("datasets.findings"),
            cell: (column) =>
              column.findings.map((finding) => (
                <div key={finding}>
                  <Engine>{finding}</Engine>
                </div>
              )),
          },
        ]}
      />
      <div role="status">
        {kept.length > 0 && (
          <Notice weight="attention" title={t("register.kept")}>
            {t("register.keptHelp", { columns: list(kept) })}
          </Notice>
        )}
      </div>
    </>
  );
}
