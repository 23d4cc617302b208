// Which scenes are shown: the filters of an address, and the order of the table.

import { parseRange } from "./address";
import type { Scene } from "./index";

export type MeasureKey = "gain" | "los" | "outage" | "paths";

export interface Measure {
  key: MeasureKey;
  label: string;
  unit: string;
  /** From the value in the index to what is shown, e.g. a share in %. */
  factor: number;
  digits: number;
}

export const MEASURES: Measure[] = [
  { key: "gain", label: "Median path gain", unit: "dB", factor: 1, digits: 1 },
  { key: "los", label: "Users with line of sight", unit: "%", factor: 100, digits: 0 },
  { key: "outage", label: "Users in outage", unit: "%", factor: 100, digits: 0 },
  { key: "paths", label: "Median number of paths", unit: "", factor: 1, digits: 0 },
];

export function shownValue(scene: Scene, measure: Measure): number | null {
  const value = scene[measure.key];
  return value === null ? null : value * measure.factor;
}

const chosen = (text: string | null): Set<string> | null => (text ? new Set(text.split(",")) : null);

export function filterScenes(scenes: Scene[], query: URLSearchParams, city = ""): Scene[] {
  const [splits, statuses, sources] = ["split", "status", "height"].map((key) => chosen(query.get(key)));
  const reason = query.get("reason");
  const word = query.get("q")?.toLowerCase() ?? "";
  const ranges = MEASURES.flatMap((measure) => {
    const range = parseRange(query.get(measure.key));
    return range ? [{ measure, range }] : [];
  });
  return scenes.filter(
    (scene) =>
      (!city || scene.city === city) &&
      (!splits || splits.has(scene.split)) &&
      (!statuses || statuses.has(scene.status)) &&
      (!sources || sources.has(scene.source)) &&
      (!reason || scene.reason === reason) &&
      (!word || `${scene.id} ${scene.city} ${scene.country}`.toLowerCase().includes(word)) &&
      ranges.every(({ measure, range: [low, high] }) => {
        const value = shownValue(scene, measure);
        return value !== null && value >= low && value <= high;
      }),
  );
}

/** Scenes in the order `key`, or backwards for `-key`; those without a value last. */
export function sortScenes(scenes: Scene[], order: string | null): Scene[] {
  if (!order) return scenes;
  const key = order.replace(/^-/, "") as keyof Scene;
  const sign = order.startsWith("-") ? -1 : 1;
  return [...scenes].sort((a, b) => {
    const [first, second] = [a[key], b[key]];
    if (first === null || second === null) return Number(first === null) - Number(second === null);
    if (typeof first === "string") return sign * first.localeCompare(String(second));
    return sign * (Number(first) - Number(second));
  });
}
