// What is read of a user: paths, channel, and where the user moves.

import type { Index, Scene } from "./index";
import type { Link } from "./links";
import { type Channel, decibel } from "./numbers";
import type { Path } from "./paths";
import type { Point } from "./rays";

/** Arrays of what is read of a user. */
export const PATHS = [
  "paths/gain",
  "paths/delay",
  "paths/aod_zenith",
  "paths/aod_azimuth",
  "paths/aoa_zenith",
  "paths/aoa_azimuth",
  "paths/doppler",
  "paths/interactions",
  "paths/vegetation_loss",
];
export const CHANNEL = ["csi"];
export const MOVING_CHANNEL = ["trajectory/csi"];
export const MOTION = ["trajectory/position", "trajectory/velocity"];

/** Those of them that the version has, by their names in it. */
export const userParts = (link: Link, names: string[]) =>
  names.filter((name) => link.has(name)).map((name) => link.name(name));

/** Paths of a user, strongest first; empty where there are none. */
export async function loadPaths(link: Link, scene: Scene, user: number): Promise<Path[]> {
  const read = await Promise.all(PATHS.map((name) => (link.has(name) ? link.read(name, scene.row, user) : null)));
  const [gain, delay, aodZenith, aodAzimuth, aoaZenith, aoaAzimuth, doppler, interactions, loss] = read;
  if (!gain) return [];
  const at = (values: (typeof read)[number], path: number) => values?.data[path] ?? Number.NaN;
  const bounces = interactions?.shape[1] ?? 0;
  return Array.from({ length: gain.shape[0] }, (_, path): Path => {
    const [real, imaginary] = [gain.data[2 * path], gain.data[2 * path + 1]];
    return {
      gain: decibel(real ** 2 + imaginary ** 2),
      phase: (Math.atan2(imaginary, real) * 180) / Math.PI,
      delay: at(delay, path),
      departure: { zenith: at(aodZenith, path), azimuth: at(aodAzimuth, path) },
      arrival: { zenith: at(aoaZenith, path), azimuth: at(aoaAzimuth, path) },
      doppler: at(doppler, path),
      interactions: Array.from({ length: bounces }, (_, b) => interactions?.data[path * bounces + b] ?? 0).filter(
        Boolean,
      ),
      loss: loss ? loss.data[path] : 0,
    };
  }).filter((path) => !Number.isNaN(path.gain));
}

export interface Motion {
  time: number[];
  /** Of every snapshot, in the scene's frame, m. */
  places: Point[];
  speeds: number[];
}

/** Where a user moves, whichever base station it listens to; `first` is the place of the first one. */
export async function loadMotion(link: Link, scene: Scene, user: number, first: Point): Promise<Motion | null> {
  const { version } = link;
  if (!version.has("trajectory/position")) return null;
  const [time, place, velocity] = await Promise.all([
    version.coordinate("trajectory/time"),
    version.read("trajectory/position", scene.row, user),
    version.read("trajectory/velocity", scene.row, user),
  ]);
  const triples = (data: ArrayLike<number>) =>
    time.map((_, step): Point => [data[3 * step], data[3 * step + 1], data[3 * step + 2]]);
  return {
    time,
    places: triples(place.data).map((point) => point.map((value, axis) => value + first[axis]) as Point),
    speeds: triples(velocity.data).map((point) => Math.hypot(...point)),
  };
}

export interface Snapshot {
  channel: Channel;
  /** Response of the array's first element over the subcarriers, parts (subcarrier, 2); null for a single carrier. */
  wideband: { parts: Float64Array; subcarriers: number; spacing: number } | null;
}

/** Channel at the carrier; of a user that moves at a snapshot, in the middle of the band. */
export async function loadChannel(link: Link, scene: Scene, user: number, step: number | null): Promise<Snapshot> {
  if (step === null) {
    const { data, shape } = await link.read("csi", scene.row, user);
    const [columns, rows] = shape.slice(-3);
    // Axes before these, of receive antennas or subcarriers: the first of each.
    return { channel: { parts: data, columns, rows }, wideband: null };
  }
  const [{ data, shape }, frequency] = await Promise.all([
    link.read("trajectory/csi", scene.row, user, step),
    link.version.coordinate("trajectory/frequency"),
  ]);
  const [subcarriers, columns, rows] = shape;
  const size = 2 * columns * rows;
  const middle = frequency.reduce((best, value, i) => (Math.abs(value) < Math.abs(frequency[best]) ? i : best), 0);
  const values = Float64Array.from({ length: size }, (_, i) => data[middle * size + i]);
  const parts = Float64Array.from({ length: 2 * subcarriers }, (_, i) => data[Math.floor(i / 2) * size + (i % 2)]);
  const spacing = subcarriers > 1 ? frequency[1] - frequency[0] : 0;
  return {
    channel: { parts: values, columns, rows },
    wideband: subcarriers > 1 ? { parts, subcarriers, spacing } : null,
  };
}

export const isMoving = (index: Index) => index.arrays.includes("trajectory/position");
