// Several base stations: where they stand, and the links of one of them by the names that a store of one has.

import type { Index, Scene } from "./index";
import type { Point } from "./rays";
import type { Values, Version } from "./store";

export interface Station {
  number: number;
  place: Point;
  /** Unit vector of the panel's boresight. */
  boresight: Point;
}

/** Number of base stations of every scene. */
export const countOf = (index: Index) => index.attributes.base_stations?.count ?? 1;

/** Number of the base station that an address names; the first one unless there is such a number. */
export function numberOf(index: Index, text: string | null): number {
  const number = /^\d+$/.test(text ?? "") ? Number(text) : 0;
  return number < countOf(index) ? number : 0;
}

/** The arrays of the links of one base station. */
export class Link {
  constructor(
    readonly version: Version,
    readonly number: number,
  ) {}

  /** Name of an array in the store; what links do not have of their own is the store's. */
  name(name: string): string {
    const own = `bs/${this.number}/${name}`;
    return this.number && this.version.has(own) ? own : name;
  }

  has(name: string): boolean {
    return this.version.has(this.name(name));
  }

  read(name: string, row: number, ...rest: (number | null)[]): Promise<Values> {
    return this.version.read(this.name(name), row, ...rest);
  }
}

/** The first base station by the attributes of the store. */
export function firstOf(index: Index, scene: Scene): Station {
  const [x, y, z] = index.attributes.bs_position_m;
  const azimuth = index.attributes.recipe?.radio?.azimuth ?? -90;
  return { number: 0, place: [x + scene.shift, y, z], boresight: boresightOf(index, azimuth) };
}

/** Base stations of a scene; null for one that found no place there. */
export async function loadStations(version: Version, scene: Scene): Promise<(Station | null)[]> {
  const { index } = version;
  const first = firstOf(index, scene);
  const count = countOf(index);
  if (count === 1) return [first];
  const [place, azimuth] = await Promise.all(STATIONS.map((name) => version.read(name, scene.row)));
  return Array.from({ length: count }, (_, number) => {
    const boresight = boresightOf(index, azimuth.data[number]);
    if (number === 0) return { ...first, boresight };
    const own = [0, 1, 2].map((axis) => place.data[3 * number + axis]) as Point;
    return own.every(Number.isFinite) ? { number, place: own, boresight } : null;
  });
}

/** Arrays that say where several base stations stand. */
export const STATIONS = ["bs/position", "bs/azimuth"];

function boresightOf(index: Index, azimuth: number): Point {
  const { downtilt = 0 } = index.attributes.recipe?.radio ?? {};
  const [a, d] = [(azimuth * Math.PI) / 180, (downtilt * Math.PI) / 180];
  return [Math.cos(a) * Math.cos(d), Math.sin(a) * Math.cos(d), -Math.sin(d)];
}
