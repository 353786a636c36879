// What of a dataset a first signature is for: one version, or later ones too, within bounds of the number of patients.
import type { SeriesBounds, SeriesOffer } from "../ipc/types";

export interface Versions {
  scope: "snapshot" | "series";
  /** As they are typed. */
  fewest: string;
  most: string;
}

/** The snapshot alone, with the bounds that are suggested for anybody who chooses more. */
export function begin(offer: SeriesOffer | null): Versions {
  const { fewest, most } = offer?.bounds ?? { fewest: "", most: "" };
  return { scope: "snapshot", fewest: String(fewest), most: String(most) };
}

/** A whole number as it was typed; `null` for anything else. */
export function whole(text: string): number | null {
  return /^\d{1,12}$/.test(text.trim()) ? Number(text) : null;
}

/** What the engine is asked for: `null` for the snapshot alone, `undefined` while the bounds leave out this version. */
export function boundsOf({ scope, ...typed }: Versions, patients: number): SeriesBounds | null | undefined {
  if (scope === "snapshot") return null;
  const [fewest, most] = [whole(typed.fewest), whole(typed.most)];
  if (fewest === null || most === null || fewest > patients || most < patients) return undefined;
  return { fewest, most };
}
