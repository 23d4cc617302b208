// Crowns of trees and woods of a scene, of which the receipt of its unit has the shapes.

import type { Scene } from "./index";
import type { Version } from "./store";

export interface Tree {
  x: number;
  y: number;
  radius: number;
  base: number;
  top: number;
}

export interface Wood {
  base: number;
  top: number;
  /** The outer one first. */
  rings: [number, number][][];
}

export interface Crowns {
  trees: Tree[];
  woods: Wood[];
}

interface Receipt {
  scenes: { scene_id: string; provenance?: { vegetation?: { shapes?: { trees: string; woods: string } } } }[];
}

/** Crowns of a scene; null where the version has no vegetation, or did not keep their shapes. */
export async function loadCrowns(version: Version, scene: Scene): Promise<Crowns | null> {
  const { attributes, layout } = version.index;
  if (!attributes.vegetation) return null;
  const unit = String(Math.floor(scene.row / layout.unit)).padStart(5, "0");
  const receipt = await version.json<Receipt>(`receipts/unit-${unit}.json`, version.base);
  const shapes = receipt?.scenes.find(({ scene_id }) => scene_id === scene.id)?.provenance?.vegetation?.shapes;
  if (!shapes) return null;
  const trees: number[][] = JSON.parse(shapes.trees);
  const woods: [number, number, [number, number][][]][] = JSON.parse(shapes.woods);
  return {
    trees: trees.map(([x, y, radius, base, top]) => ({ x, y, radius, base, top })),
    woods: woods.map(([base, top, rings]) => ({ base, top, rings })),
  };
}
