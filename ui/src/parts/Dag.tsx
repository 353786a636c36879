import { graphlib, layout } from "@dagrejs/dagre";
import "@xyflow/react/dist/base.css";
import { type Edge, Handle, type Node, type NodeProps, Position, ReactFlow } from "@xyflow/react";
import { useMemo } from "react";
import { Badge, type Tone } from "./Badge";
import styles from "./Dag.module.css";

export interface DagTask {
  name: string;
  /** What it is, in words. */
  component: string;
  /** Tasks whose outputs it takes. */
  from: string[];
  /** `null` for a task without a state of its own. */
  tone: Tone | null;
  state: string;
}

const WIDTH = 148;
const HEIGHT = 74;
/** Around the graph, in pixels, both sides together. */
const MARGIN = 40;
/** Below this a graph scrolls rather than shrinks. */
const SMALLEST = 0.8;

type TaskNode = Node<{ task: DagTask }, "task">;

function Task({ data: { task } }: NodeProps<TaskNode>) {
  return (
    <div className={`${styles.task} ${task.tone === "live" ? styles.live : ""}`}>
      <Handle type="target" position={Position.Left} className={styles.port ?? ""} isConnectable={false} />
      <strong className={styles.name}>{task.name}</strong>
      <span className={styles.component}>{task.component}</span>
      {task.tone === null ? (
        <span className={styles.component} title={task.state}>
          {task.state}
        </span>
      ) : (
        <Badge tone={task.tone}>{task.state}</Badge>
      )}
      <Handle type="source" position={Position.Right} className={styles.port ?? ""} isConnectable={false} />
    </div>
  );
}

const TYPES = { task: Task };

function drawn(tasks: DagTask[]): { nodes: TaskNode[]; edges: Edge[]; width: number; height: number } {
  const graph = new graphlib.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 26 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const task of tasks) graph.setNode(task.name, { width: WIDTH, height: HEIGHT });
  const edges = tasks.flatMap((task) =>
    task.from.map((from) => ({ id: `${from}→${task.name}`, source: from, target: task.name })),
  );
  for (const edge of edges) graph.setEdge(edge.source, edge.target);
  layout(graph);
  const nodes = tasks.map((task) => {
    const { x = 0, y = 0 } = graph.node(task.name) as { x?: number; y?: number };
    return {
      id: task.name,
      type: "task" as const,
      data: { task },
      position: { x: x - WIDTH / 2, y: y - HEIGHT / 2 },
    };
  });
  const { width = WIDTH, height = HEIGHT } = graph.graph() as { width?: number; height?: number };
  return { nodes, edges, width, height };
}

/** Tasks and what they take from each other. For who does not see it, a table of the same stands beside it. */
export function Dag({ tasks, label }: { tasks: DagTask[]; label: string }) {
  const { nodes, edges, width, height } = useMemo(() => drawn(tasks), [tasks]);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    // biome-ignore lint/a11y/useSemanticElements: a fieldset is for forms
    <div role="group" aria-label={label} tabIndex={0} className={styles.scroll}>
      <div
        aria-hidden="true"
        className={styles.dag}
        style={{ height: height + MARGIN, minWidth: (width + MARGIN) * SMALLEST }}
      >
        <ReactFlow
          nodes={nodes}
          edges={edges}
          nodeTypes={TYPES}
          fitView
          fitViewOptions={{ padding: `${MARGIN / 4}px`, maxZoom: 1 }}
          minZoom={SMALLEST / 2}
          maxZoom={1}
          nodesDraggable={false}
          nodesConnectable={false}
          nodesFocusable={false}
          edgesFocusable={false}
          elementsSelectable={false}
          panOnDrag={false}
          zoomOnScroll={false}
          zoomOnDoubleClick={false}
          preventScrolling={false}
          disableKeyboardA11y
          proOptions={{ hideAttribution: true }}
        />
      </div>
    </div>
  );
}
