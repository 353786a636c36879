// @vitest-environment jsdom
import { act } from "react";
import { createRoot } from "react-dom/client";
import { beforeEach, expect, it } from "vitest";
import { speak } from "../src/i18n";
import type { NumberMetrics, ReportView } from "../src/ipc/types";
import { Subgroups } from "../src/screens/Subgroups";

declare global {
  var IS_REACT_ACT_ENVIRONMENT: boolean;
}

const figures = (rows: number, rmse: number): ReportView => ({
  number: { rows, rmse, mae: 1, r_squared: null, intervals: {} } as unknown as NumberMetrics,
});

beforeEach(async () => {
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
  await speak("en");
});

it("shows every subgroup to the site's own people, and which of them leave", async () => {
  const place = document.createElement("div");
  document.body.append(place);
  const groups = [
    { code: "1", rows: 40, leaves: true, view: figures(40, 2.5) },
    { code: "2", rows: 4, leaves: false, view: figures(4, 7.25) },
    { code: "3", rows: 0, leaves: false, view: null },
  ];
  const shown: ReportView[] = [];
  const root = createRoot(place);
  await act(async () =>
    root.render(
      <Subgroups
        all={figures(46, 3.5)}
        column="sex"
        groups={groups}
        ungrouped={2}
        inFull={(report) => {
          shown.push(report);
          return null;
        }}
      />,
    ),
  );
  const rows = [...place.querySelectorAll("tr")].slice(1).map((row) => row.textContent);
  expect(rows).toEqual([
    "All rows463.5001.000undefined–",
    "sex = 1402.5001.000undefinedyes",
    "sex = 247.2501.000undefinedwithheld",
    "sex = 30–––withheld",
  ]);
  expect(place.textContent).toContain("2 rows have no sex.");
  expect(shown.at(-1)).toEqual(figures(46, 3.5));
  await act(async () => root.unmount());
  place.remove();
});
