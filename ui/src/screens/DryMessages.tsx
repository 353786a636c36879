import { useTranslation } from "react-i18next";
import { Engine, named } from "../i18n/engine";
import { brief, count, exactNumber, list } from "../i18n/format";
import type { DryMessage, DryPayload, DryRunView, TensorPreview } from "../ipc/types";
import { DigestChip } from "../parts/DigestChip";
import { Notice } from "../parts/Notice";
import { TaskBadge } from "../parts/states";
import { Table } from "../parts/Table";
import { DryAttack } from "./DryAttack";
import forms from "./Forms.module.css";
import styles from "./Review.module.css";

/** Tensors that are listed; of a deep network there are hundreds, and the list of what leaves names them all. */
const TENSORS = 20;

/** What each task would send in its first round, and what is in it. */
export function DryMessages({ tried }: { tried: DryRunView }) {
  const { t } = useTranslation();
  const over = tried.messages.filter((message) => message.made !== null || message.failure !== null);
  if (over.length === 0) return null;
  const of = (message: DryMessage, number: (made: DryPayload) => number) =>
    message.made === null ? "" : count(number(message.made));
  return (
    <>
      {tried.runs > 1 && <p className={forms.prose}>{t("dryRun.first", { count: tried.runs })}</p>}
      <Table
        label={t("dryRun.messages")}
        items={tried.messages}
        id={(message) => message.task}
        columns={[
          { key: "task", name: t("dryRun.task"), cell: (message) => message.task },
          {
            key: "does",
            name: t("dryRun.does"),
            cell: (message) => named("words.component", message.component),
          },
          { key: "state", name: t("dryRun.state"), cell: (message) => <TaskBadge state={message.state} /> },
          {
            key: "rounds",
            name: t("dryRun.rounds"),
            isNumber: true,
            cell: (message) => count(message.rounds),
          },
          {
            key: "values",
            name: t("dryRun.values"),
            isNumber: true,
            cell: (message) => of(message, (made) => made.values),
          },
          {
            key: "bytes",
            name: t("dryRun.bytes"),
            isNumber: true,
            cell: (message) => of(message, (made) => made.bytes),
          },
          {
            key: "held",
            name: t("dryRun.held"),
            isNumber: true,
            cell: (message) => of(message, (made) => Object.keys(made.withheld).length),
          },
        ]}
      />
      {over.map((message) => (
        <Message key={message.task} message={message} />
      ))}
    </>
  );
}

function Message({ message }: { message: DryMessage }) {
  const { t } = useTranslation();
  const { made } = message;
  return (
    <section aria-label={message.task} className={styles.sentences}>
      <h3>{message.task}</h3>
      {made === null ? (
        <Notice weight="attention" title={t("dryRun.nothing")}>
          <Engine isMachine>{message.failure ?? ""}</Engine>
        </Notice>
      ) : (
        <>
          {message.start === "stand_in" && <p>{t("dryRun.standIn")}</p>}
          {message.start === "untrained" && <p>{t("dryRun.untrained")}</p>}
          <Payload made={made} task={message.task} />
          <Held made={made} />
          <div className={forms.small}>{t("dryRun.digest")}</div>
          <DigestChip digest={made.digest} of={t("dryRun.digestOf", { task: message.task })} />
          {made.attack !== null && <DryAttack attack={made.attack} task={message.task} />}
        </>
      )}
    </section>
  );
}

/** What a rule holds back, by name. */
function Held({ made }: { made: DryPayload }) {
  const { t } = useTranslation();
  const names = Object.keys(made.withheld);
  if (names.length === 0) return <p>{t("dryRun.noneHeld")}</p>;
  return <p>{t("dryRun.heldNames", { count: names.length, names: list(names) })}</p>;
}

function Payload({ made, task }: { made: DryPayload; task: string }) {
  const { t } = useTranslation();
  const { preview } = made;
  if ("figures" in preview) {
    return (
      <Table
        label={t("dryRun.figuresOf", { task })}
        items={Object.entries(preview.figures)}
        id={([name]) => name}
        columns={[
          { key: "name", name: t("dryRun.figure"), cell: ([name]) => name },
          {
            key: "numbers",
            name: t("dryRun.numbers"),
            cell: ([, numbers]) => numbers.map(exactNumber).join("; "),
          },
        ]}
      />
    );
  }
  const { rows, tensors, further } = preview.update;
  const left = tensors.length - Math.min(tensors.length, TENSORS) + further;
  return (
    <>
      <p>{t("dryRun.update", { count: rows })}</p>
      <Tensors task={task} tensors={tensors.slice(0, TENSORS)} />
      {left > 0 && <p>{t("dryRun.further", { count: left })}</p>}
      {made.cut > 0 && <p>{t("dryRun.cut", { count: made.cut })}</p>}
    </>
  );
}

function Tensors({ task, tensors }: { task: string; tensors: TensorPreview[] }) {
  const { t } = useTranslation();
  return (
    <Table
      label={t("dryRun.tensorsOf", { task })}
      items={tensors}
      id={(tensor) => tensor.name}
      columns={[
        { key: "name", name: t("dryRun.tensor"), cell: (tensor) => tensor.name },
        { key: "shape", name: t("dryRun.shape"), cell: (tensor) => tensor.shape.map(count).join(" × ") },
        { key: "min", name: t("dryRun.min"), isNumber: true, cell: (tensor) => brief(tensor.min) },
        { key: "max", name: t("dryRun.max"), isNumber: true, cell: (tensor) => brief(tensor.max) },
        { key: "norm", name: t("dryRun.norm"), isNumber: true, cell: (tensor) => brief(tensor.norm) },
        { key: "first", name: t("dryRun.firstOf"), cell: (tensor) => tensor.first.map(brief).join("; ") },
      ]}
    />
  );
}
