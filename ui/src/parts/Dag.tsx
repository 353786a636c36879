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

const WIDTH = 168;
/** What is left of it for text, and what letters and lines take, in pixels: rather more than they do. */
const INSIDE = WIDTH - 20;
const [NAME_LETTER, LETTER, WIDE_LETTER] = [8, 6.4, 12.5];
const [NAME_LINE, LINE, BADGE, AROUND] = [18.2, 18, 24, 18];
/** A letter of a script in which lines break between any two, or a word with the blanks behind it. */
const WORD = /[\u2e80-\uffef]|[^\s\u2e80-\uffef]+\s*/g;
/** Around the graph, in pixels, both sides together. */
const MARGIN = 40;
/** Below this a graph scrolls rather than shrinks. */
const SMALLEST = 0.8;

type TaskNode = Node<{ task: DagTask; height: number }, "task">;

function Task({ data: { task, height } }: NodeProps<TaskNode>) {
  return (
    <div
      className={`${styles.task} ${task.tone === "live" ? styles.live : ""}`}
      style={{ width: WIDTH, height }}
    >
      <Handle type="target" position={Position.Left} className={styles.port ?? ""} isConnectable={false} />
      <strong className={styles.name}>{task.name}</strong>
      <span className={styles.component}>{task.component}</span>
      {task.tone === null ? (
        <span className={styles.component}>{task.state}</span>
      ) : (
        <Badge tone={task.tone}>{task.state}</Badge>
      )}
      <Handle type="source" position={Position.Right} className={styles.port ?? ""} isConnectable={false} />
    </div>
  );
}

const TYPES = { task: Task };

/** Lines that a text takes at most. */
function lines(text: string, letter: number): number {
  let [count, used] = [1, 0];
  for (const word of text.match(WORD) ?? []) {
    const width = word.length * (word >= "\u2e80" ? WIDE_LETTER : letter);
    if (used > 0 && used + width > INSIDE) [count, used] = [count + 1, 0];
    // What is longer than a line goes on in the next one.
    count += Math.floor(width / (INSIDE + 1));
    used = (used + width) % (INSIDE + 1);
  }
  return count;
}

/** How high a task is drawn, so that nothing of it is cut off and no two overlap. */
function heightOf({ name, component, tone, state }: DagTask): number {
  const words = lines(component, LETTER) * LINE + (tone === null ? lines(state, LETTER) * LINE : BADGE);
  return Math.ceil(lines(name, NAME_LETTER) * NAME_LINE + words + AROUND);
}

function drawn(tasks: DagTask[]): { nodes: TaskNode[]; edges: Edge[]; width: number; height: number } {
  const graph = new graphlib.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 26 });
  graph.setDefaultEdgeLabel(() => ({}));
  const heights = new Map(tasks.map((task) => [task.name, heightOf(task)]));
  for (const task of tasks) graph.setNode(task.name, { width: WIDTH, height: heights.get(task.name) ?? 0 });
  const edges = tasks.flatMap((task) =>
    task.from.map((from) => ({ id: `${from}→${task.name}`, source: from, target: task.name })),
  );
  for (const edge of edges) graph.setEdge(edge.source, edge.target);
  layout(graph);
  const nodes = tasks.map((task) => {
    const { x = 0, y = 0 } = graph.node(task.name) as { x?: number; y?: number };
    const height = heights.get(task.name) ?? 0;
    return {
      id: task.name,
      type: "task" as const,
      data: { task, height },
      position: { x: x - WIDTH / 2, y: y - height / 2 },
    };
  });
  const { width = WIDTH, height = 0 } = graph.graph() as { width?: number; height?: number };
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
