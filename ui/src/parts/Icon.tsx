import styles from "./Icon.module.css";

/** Strokes on a grid of 20; one weight, round ends. */
const PATHS = {
  home: "M3.5 9 10 3.5 16.5 9v7a.75.75 0 0 1-.75.75h-3.5V12h-4.5v4.75h-3.5A.75.75 0 0 1 3.5 16z",
  requests:
    "M3 11.5 5 4.75A1 1 0 0 1 6 4h8a1 1 0 0 1 1 .75l2 6.75V15a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1zM3 11.5h4a3 3 0 0 0 6 0h4",
  approvals: "M10 2.75 16 5v4.75c0 3.6-2.5 6.3-6 7.5-3.5-1.2-6-3.9-6-7.5V5zM7.5 10l1.75 1.75L12.75 8",
  jobs: "M2.5 10.5h3l2.25-6 4.25 11 2.25-5h3.25",
  models: "M10 2.75 16.5 6.25v7.5L10 17.25l-6.5-3.5v-7.5zM3.75 6.5 10 10l6.25-3.5M10 10v7",
  datasets:
    "M3.5 5c0-1.25 2.9-2.25 6.5-2.25S16.5 3.75 16.5 5s-2.9 2.25-6.5 2.25S3.5 6.25 3.5 5zM3.5 5v10c0 1.25 2.9 2.25 6.5 2.25s6.5-1 6.5-2.25V5M3.5 10c0 1.25 2.9 2.25 6.5 2.25s6.5-1 6.5-2.25",
  egress: "M4 12.5V15.5a1 1 0 0 0 1 1h10a1 1 0 0 0 1-1v-3M10 12.5V3.5M6.5 7 10 3.5 13.5 7",
  privacy:
    "M3 14.5a7 7 0 0 1 14 0M3 14.5h2.5M14.5 14.5H17M10 14.5l3-4.75M10 15.75a1.25 1.25 0 1 0 0-2.5 1.25 1.25 0 0 0 0 2.5z",
  federations:
    "M10 7.25a2.25 2.25 0 1 0 0-4.5 2.25 2.25 0 0 0 0 4.5zM4.75 17.25a2.25 2.25 0 1 0 0-4.5 2.25 2.25 0 0 0 0 4.5zM15.25 17.25a2.25 2.25 0 1 0 0-4.5 2.25 2.25 0 0 0 0 4.5zM8.9 7 5.85 12.9M11.1 7l3.05 5.9M7 15h6",
  audit:
    "M5 2.75h7L15.5 6.25v10a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1v-12.5a1 1 0 0 1 1-1zM7 8.5h5.5M7 11.25h5.5M7 14h3.5",
  settings:
    "M3 6h7M14 6h3M3 14h3M10 14h7M12 8a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM8 16a2 2 0 1 0 0-4 2 2 0 0 0 0 4z",
  check: "M4.5 10.5 8.25 14.25 15.5 6",
  clock: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 6v4.25l2.75 1.75",
  pause: "M7 4.5v11M13 4.5v11",
  stop: "M5.5 5.5h9v9h-9z",
  cross: "M5.5 5.5l9 9M14.5 5.5l-9 9",
  alarm: "M10 3 17.5 16.25h-15zM10 8v3.75M10 14v.01",
  info: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 9.25v4M10 6.5v.01",
  copy: "M7.5 7.5h8a1 1 0 0 1 1 1v7a1 1 0 0 1-1 1h-8a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1zM13.5 7.5v-3a1 1 0 0 0-1-1h-8a1 1 0 0 0-1 1v7a1 1 0 0 0 1 1h2",
  lock: "M5.5 9h9a1 1 0 0 1 1 1v5.5a1 1 0 0 1-1 1h-9a1 1 0 0 1-1-1V10a1 1 0 0 1 1-1zM7 9V6.5a3 3 0 0 1 6 0V9",
  person: "M10 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM4 16.5c.5-3 2.9-4.75 6-4.75s5.5 1.75 6 4.75",
  link: "M2.5 12.5c4.5-3.75 10.5-3.75 15 0M5.25 15.25c2.9-2.25 6.6-2.25 9.5 0M10 17.25v.01M1 9.5c5.4-4.6 12.6-4.6 18 0",
  right: "M7.5 4.5 13 10l-5.5 5.5",
  left: "M12.5 4.5 7 10l5.5 5.5",
  down: "M4.5 7.5 10 13l5.5-5.5",
  plus: "M10 4v12M4 10h12",
  menu: "M3 5.5h14M3 10h14M3 14.5h14",
  dot: "M10 14a4 4 0 1 0 0-8 4 4 0 0 0 0 8z",
  ring: "M10 15a5 5 0 1 0 0-10 5 5 0 0 0 0 10z",
  half: "M10 15.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM10 4.5v11",
  table: "M3.5 4.5h13v11h-13zM3.5 8.5h13M8 8.5v7",
} as const;

export type IconName = keyof typeof PATHS;

/** A small picture beside a word; it says nothing that the word does not. */
export function Icon({ name, size = 20 }: { name: IconName; size?: number }) {
  return (
    <svg
      className={styles.icon}
      width={size}
      height={size}
      viewBox="0 0 20 20"
      aria-hidden="true"
      focusable="false"
    >
      <path d={PATHS[name]} className={name === "dot" ? styles.full : undefined} />
    </svg>
  );
}
