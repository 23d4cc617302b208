// Vertices of paths. A store keeps a path's directions, delay and interactions, not where it bounced: `rebuild` finds that
// again, as wavecity.dataset.preview.paths does.

import { SPEED_OF_LIGHT } from "./numbers";
import { distance, dot, firstHit, minus, type Point, plus, times } from "./rays";

export const [SPECULAR, DIFFUSE, REFRACTION, DIFFRACTION] = [1, 2, 4, 8];
const NAMES: Record<number, string> = {
  [SPECULAR]: "reflection",
  [DIFFUSE]: "scattering",
  [REFRACTION]: "refraction",
  [DIFFRACTION]: "diffraction",
};
/** A path counts as rebuilt when its ends meet, and its length is delay times c, within this many m. */
export const TOLERANCE = 0.05;
/** Length in m of what is drawn of a ray that leads to no wall. */
const STUB = 15;

export interface Path {
  gain: number;
  /** Phase of the coefficient in degrees. */
  phase: number;
  delay: number;
  departure: { zenith: number; azimuth: number };
  arrival: { zenith: number; azimuth: number };
  doppler: number;
  interactions: number[];
  /** What crowns take from it, dB; 0 where it goes through none. */
  loss: number;
}

export interface Drawn {
  whole: boolean;
  /** The path from base to user; or what leads away from both its ends. */
  lines: Point[][];
}

export function direction({ zenith, azimuth }: { zenith: number; azimuth: number }): Point {
  return [Math.sin(zenith) * Math.cos(azimuth), Math.sin(zenith) * Math.sin(azimuth), Math.cos(zenith)];
}

export function describe(interactions: number[]): string {
  return interactions.length ? interactions.map((kind) => NAMES[kind] ?? `code ${kind}`).join(", ") : "line of sight";
}

export function rebuild(base: Point, user: Point, path: Path, triangles: Float64Array): Drawn {
  const { interactions } = path;
  const length = path.delay * SPEED_OF_LIGHT;
  const fits = (line: Point[]) => Math.abs(lengthOf(line) - length) < TOLERANCE;
  const bends = interactions.flatMap((kind, index) => (kind === REFRACTION ? [] : [index]));
  if (!bends.length) return { whole: fits([base, user]), lines: [[base, user]] };
  // The vertex where the rays from both ends meet: one that mirrors nothing, else the last one.
  const pivot = bends.find((index) => interactions[index] !== SPECULAR) ?? bends[bends.length - 1];
  const ahead = mirrorAlong(base, direction(path.departure), interactions.slice(0, pivot), triangles);
  const behind = mirrorAlong(user, direction(path.arrival), interactions.slice(pivot + 1).reverse(), triangles);
  if (ahead.ray && behind.ray) {
    const { point, gap } = meeting(last(ahead.points), ahead.ray, last(behind.points), behind.ray);
    const line = [...ahead.points, point, ...[...behind.points].reverse()];
    if (gap < TOLERANCE && fits(line)) return { whole: true, lines: [line] };
  }
  const lines = [ahead, behind].map(({ points, ray }) => {
    if (!ray) return points;
    const { distance: far } = firstHit(last(points), ray, triangles);
    return [...points, plus(last(points), times(ray, far < length ? far : STUB))];
  });
  return { whole: false, lines };
}

const last = (points: Point[]) => points[points.length - 1];

/** Follow a ray through reflections and refractions: its vertices, and where it goes next (null: not known). */
function mirrorAlong(
  origin: Point,
  start: Point,
  interactions: number[],
  triangles: Float64Array,
): { points: Point[]; ray: Point | null } {
  const points = [origin];
  let ray = start;
  for (const kind of interactions) {
    const hit = firstHit(last(points), ray, triangles);
    if ((kind !== SPECULAR && kind !== REFRACTION) || !Number.isFinite(hit.distance)) {
      return { points, ray: points.length > 1 ? null : ray };
    }
    points.push(plus(last(points), times(ray, hit.distance)));
    if (kind === SPECULAR) ray = minus(ray, times(hit.normal, 2 * dot(ray, hit.normal)));
  }
  return { points, ray };
}

/** Point nearest to both half-lines, and their distance there in m (Infinity: behind an end). */
function meeting(first: Point, ray: Point, second: Point, other: Point): { point: Point; gap: number } {
  const between = minus(second, first);
  const cosine = dot(ray, other);
  const [a, b] = [dot(between, ray), dot(between, other)];
  const sine = 1 - cosine ** 2;
  // Opposite rays on one line meet anywhere between their ends.
  if (sine < 1e-12) return { point: times(plus(first, second), 0.5), gap: cosine < 0 ? 0 : Infinity };
  const along = (a - cosine * b) / sine;
  const otherAlong = (cosine * a - b) / sine;
  if (along < 0 || otherAlong < 0) return { point: times(plus(first, second), 0.5), gap: Infinity };
  const ends = [plus(first, times(ray, along)), plus(second, times(other, otherAlong))];
  return { point: times(plus(ends[0], ends[1]), 0.5), gap: distance(ends[0], ends[1]) };
}

function lengthOf(line: Point[]): number {
  return line.slice(1).reduce((sum, point, i) => sum + distance(point, line[i]), 0);
}
