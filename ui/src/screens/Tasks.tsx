import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { named } from "../i18n/engine";
import { count, list, moment } from "../i18n/format";
import type { JobView, TaskView } from "../ipc/types";
import { Card } from "../parts/Card";
import { Dag } from "../parts/Dag";
import { RoundBadge, TASK, TaskBadge } from "../parts/states";
import { Table } from "../parts/Table";
import forms from "./Forms.module.css";
import { type TaskState, tasksOf } from "./rounds";

/** The run's plan as a graph and as a table; who may not see it gets the tasks that its rounds name. */
export function Tasks({ job }: { job: JobView }) {
  const { t } = useTranslation();
  const seen = tasksOf(job);
  if (job.tasks.length === 0 && seen.length === 0) return null;
  return (
    <Card title={t("jobs.tasks")}>
      {job.tasks.length > 0 ? <Plan tasks={job.tasks} /> : <Seen tasks={seen} />}
    </Card>
  );
}

/** Other tasks that a task takes from, each once. */
const from = (task: TaskView) => [...new Set(task.inputs.map((input) => input.task))];

function Plan({ tasks }: { tasks: TaskView[] }) {
  const { t } = useTranslation();
  // A task without rounds of its own has no state of its own either.
  const within = t("jobs.within");
  const drawn = useMemo(
    () =>
      tasks.map((task) => ({
        name: task.name,
        from: from(task),
        component: named("words.component", task.component),
        tone: task.state === null ? null : TASK[task.state],
        state: task.state === null ? within : named("words.task", task.state),
      })),
    [tasks, within],
  );
  return (
    <>
      <Dag label={t("jobs.graph", { count: tasks.length })} tasks={drawn} />
      <Table
        label={t("jobs.tasks")}
        items={tasks}
        id={(task) => task.name}
        columns={[
          { key: "task", name: t("jobs.task"), cell: (task) => task.name },
          {
            key: "does",
            name: t("jobs.does"),
            cell: (task) => named("words.component", task.component),
          },
          { key: "from", name: t("jobs.takesFrom"), cell: (task) => list(from(task)) || "–" },
          {
            key: "state",
            name: t("jobs.state"),
            cell: (task) =>
              task.state === null ? (
                <span className={forms.small}>{within}</span>
              ) : (
                <TaskBadge state={task.state} />
              ),
          },
          { key: "rounds", name: t("jobs.taskRounds"), isNumber: true, cell: (task) => count(task.rounds) },
        ]}
      />
    </>
  );
}

/** Tasks as far as the rounds tell. */
function Seen({ tasks }: { tasks: TaskState[] }) {
  const { t } = useTranslation();
  return (
    <Table
      label={t("jobs.tasks")}
      items={tasks}
      id={(task) => task.name}
      columns={[
        { key: "task", name: t("jobs.task"), cell: (task) => task.name },
        { key: "state", name: t("jobs.state"), cell: (task) => <RoundBadge state={task.newest.state} /> },
        {
          key: "round",
          name: t("jobs.newestRound"),
          isNumber: true,
          cell: (task) => count(task.newest.round.round),
        },
        { key: "at", name: t("jobs.at"), isWhole: true, cell: (task) => moment(task.newest.at) },
      ]}
    />
  );
}
