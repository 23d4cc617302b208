// Colours that all kinds of colour vision tell apart: viridis for amounts, Okabe and Ito's palette for kinds.

import { interpolateInferno, interpolateRgbBasisClosed, interpolateViridis } from "d3";

export const amount = interpolateViridis;

/** Phases: dark at ±180 degrees, bright at 0, blue below and red above, so that the sign is seen by hue and lightness. */
export const cyclic = interpolateRgbBasisClosed(["#1b1733", "#28579b", "#79b4d8", "#f4f1ec", "#e39a72", "#a3323f"]);

export const SOURCES: Record<string, { colour: string; label: string }> = {
  tag: { colour: "#7cc0e8", label: "height tag" },
  levels: { colour: "#59bd9d", label: "number of storeys" },
  part: { colour: "#e3afca", label: "building part" },
  external: { colour: "#f1ea8b", label: "another file" },
  imputed: { colour: "#f2c46d", label: "neighbours" },
  guess: { colour: "#e8845c", label: "guess" },
};
export const UNKNOWN = "#b4b9be";

export const SPLITS: Record<string, string> = { train: "#0072b2", validation: "#e69f00", test: "#009e73" };
export const OUTCOMES: Record<string, string> = { done: "#0072b2", quarantined: "#d55e00", unknown: UNKNOWN };
export const BASE_STATION = "#d4150c";

/** Base stations whose links are not shown. */
export const OTHER_STATION = "#8a5a58";
/** Crowns of trees and woods, and paths through them. */
export const CROWN = "#3f9a4a";
/** Cells, by the number of their base station. */
export const CELLS = [
  "#56b4e9",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#f0e442",
  "#4b5fc9",
  "#e69f00",
  "#7d4f2a",
  "#a6d854",
  "#f2a0b5",
];

/** ITU's materials of buildings and ground. */
export const MATERIALS: Record<string, string> = {
  concrete: "#a9b0b7",
  brick: "#c8674a",
  metal: "#5b7fa6",
  glass: "#8fd3e0",
  wood: "#c79a4b",
  marble: "#efe3cf",
  asphalt_concrete: "#6f6a66",
};
export const materialOf = (name?: string): Category => ({
  colour: MATERIALS[name ?? ""] ?? UNKNOWN,
  label: name?.replaceAll("_", " ") ?? "not stated",
});

/** Kinds of users; Okabe and Ito's, as those of statuses. */
export const KINDS = ["#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#f0e442"];

export const STATUSES = ["line of sight", "reflected or diffracted only", "outage"];
/** With shapes of their own, so that they are told apart without colours. */
export const STATUS_COLOURS = ["#0072b2", "#e69f00", "#5f6770"];

/** Gains of paths as lines on the ground: the stronger, the further from its colour. */
export const pathColour = (dark: boolean) => (share: number) =>
  interpolateInferno(dark ? 0.4 + 0.55 * share : 0.78 - 0.68 * share);

export interface Category {
  colour: string;
  label: string;
}

export const sourceOf = (name: string): Category => SOURCES[name] ?? { colour: UNKNOWN, label: name || "none known" };
