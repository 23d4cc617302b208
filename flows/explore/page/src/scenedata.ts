// What is read of a scene when it is opened: its users, and what is known of each of them.

import type { Index, Kept, Predictions, Scene } from "./index";
import { delays } from "./numbers";
import { distance, type Point } from "./rays";
import type { Values, Version } from "./store";

export interface User {
  number: number;
  /** In the scene's frame, m. */
  place: Point;
  /** Index into STATUSES. */
  status: number;
  gain: number;
  beam: number;
  distance: number;
  paths: number;
  /** Of the stored paths, s. */
  spread: number;
  first: number;
  kind: number;
  /** Where a model locates it, at its own height. */
  predicted?: Point;
}

export interface SceneData {
  base: Point;
  users: User[];
  /** Of the run, for users whose predictions were kept whole. */
  kept: Kept[];
  masked: number;
}

export function baseOf(index: Index, scene: Scene): Point {
  const [x, y, z] = index.attributes.bs_position_m;
  return [x + scene.shift, y, z];
}

/** Unit vector of the panel's boresight. */
export function boresightOf(index: Index): Point {
  const { azimuth = -90, downtilt = 0 } = index.attributes.recipe?.radio ?? {};
  const [a, d] = [(azimuth * Math.PI) / 180, (downtilt * Math.PI) / 180];
  return [Math.cos(a) * Math.cos(d), Math.sin(a) * Math.cos(d), -Math.sin(d)];
}

export async function loadScene(version: Version, scene: Scene): Promise<SceneData> {
  const { index } = version;
  const read = (name: string): Promise<Values | null> =>
    version.has(name) ? version.read(name, scene.row) : Promise.resolve(null);
  const names = [
    "user_position",
    "path_gain",
    "los",
    "outage",
    "best_beam",
    "paths/n_paths",
    "paths/gain",
    "paths/delay",
    "trajectory/kind",
  ];
  const [place, gain, los, outage, beam, count, coefficients, delay, kind] = await Promise.all(names.map(read));
  const base = baseOf(index, scene);
  const most = delay ? delay.shape[1] : 0;
  const users = Array.from({ length: scene.users }, (_, number): User => {
    const relative = [0, 1, 2].map((axis) => place?.data[3 * number + axis] ?? Number.NaN);
    const point = relative.map((value, axis) => value + base[axis]) as Point;
    const hears = !outage?.data[number];
    const own =
      delay && coefficients
        ? delays(
            Array.prototype.slice.call(coefficients.data, 2 * number * most, 2 * (number + 1) * most),
            Array.prototype.slice.call(delay.data, number * most, (number + 1) * most),
          )
        : { spread: Number.NaN, first: Number.NaN };
    return {
      number,
      place: point,
      status: hears ? (los?.data[number] ? 0 : 1) : 2,
      gain: hears ? (gain?.data[number] ?? Number.NaN) : Number.NaN,
      beam: beam?.data[number] ?? -1,
      distance: distance(point, base),
      paths: count?.data[number] ?? Number.NaN,
      ...own,
      kind: kind?.data[number] ?? -1,
    };
  });
  const predictions = index.run?.scenes.includes(scene.row)
    ? await version.json<Predictions>("run.json", location.href)
    : null;
  const own = predictions?.scenes[scene.row];
  own?.users.number.forEach((number, i) => {
    const place = own.users.place[i];
    const user = users[number];
    if (place && user) user.predicted = [base[0] + place[0], base[1] + place[1], user.place[2]];
  });
  return { base, users, kept: own?.shown ?? [], masked: predictions?.masked ?? 0 };
}

export const locationError = (user: User) => (user.predicted ? distance(user.predicted, user.place) : Number.NaN);

export interface Field {
  key: string;
  label: string;
  unit: string;
  digits: number;
  of: (user: User) => number;
}

/** Fields that users can be coloured by; `status` is the standard. */
export function fieldsOf(index: Index): Field[] {
  const { rows } = index.attributes.array;
  const stored = (name: string) => index.arrays.includes(name);
  return [
    { key: "gain", label: "path gain", unit: "dB", digits: 1, of: (user) => user.gain },
    { key: "distance", label: "distance from the base station", unit: "m", digits: 0, of: (user) => user.distance },
    ...(stored("paths/n_paths")
      ? [{ key: "paths", label: "number of paths", unit: "", digits: 0, of: (user: User) => user.paths }]
      : []),
    ...(stored("paths/delay")
      ? [
          { key: "first", label: "first delay", unit: "ns", digits: 0, of: (user: User) => 1e9 * user.first },
          { key: "spread", label: "RMS delay spread", unit: "ns", digits: 1, of: (user: User) => 1e9 * user.spread },
        ]
      : []),
    ...(index.run
      ? [{ key: "error", label: "location error of the model", unit: "m", digits: 1, of: locationError }]
      : []),
    {
      key: "beam",
      label: "best beam, horizontal index",
      unit: "",
      digits: 0,
      of: (user) => (user.beam < 0 ? Number.NaN : Math.floor(user.beam / rows)),
    },
  ];
}
