// What is read of a scene when it is opened: its users, and what is known of each of them.

import { CELLS, KINDS } from "./colours";
import type { Followed, Index, Kept, Scene } from "./index";
import { countOf, firstOf, type Link, loadStations, STATIONS, type Station } from "./links";
import { delays } from "./numbers";
import { distance, type Point, plus } from "./rays";
import type { Values } from "./store";

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
  /** Number of the base station that serves it, -1 for none; of several only. */
  serving: number;
  /** dB. */
  sinr: number;
  /** Where a model locates it, and where physics alone does, at its own height. */
  predicted?: Point;
  physics?: Point;
  /** Waves that the model recovered, with corners in the scene's frame; none where they were not kept. */
  followed?: Followed[];
}

export interface SceneData {
  /** The base station whose links are shown. */
  link: number;
  base: Point;
  /** All; null for one that found no place in the scene. */
  stations: (Station | null)[];
  users: User[];
  /** Of the run, for users whose predictions were kept whole. */
  kept: Kept[];
  masked: number;
  /** What could not be read, in words; users are shown without it. */
  lost: string[];
}

/** Of the first base station: where users are does not hang on which one they listen to. */
const PLACE = "user_position";
const ARRAYS = [
  "path_gain",
  "los",
  "outage",
  "best_beam",
  "paths/n_paths",
  "paths/gain",
  "paths/delay",
  "trajectory/kind",
];
/** Of several base stations. */
const CELL = ["bs/serving", "bs/sinr"];

/** Those without which there are no users to show. */
const NEEDED = ["path_gain", "los", "outage"];

/** Arrays that a scene is made of. */
export const sceneParts = (link: Link) =>
  [PLACE, ...ARRAYS.map((name) => link.name(name)), ...STATIONS, ...CELL].filter((name) => link.version.has(name));

/** Users of a scene, and their links of one base station. */
export async function loadScene(link: Link, scene: Scene): Promise<SceneData> {
  const { version } = link;
  const { index } = version;
  const lost: string[] = [];
  const read = async (name: string): Promise<Values | null> => {
    if (!link.has(name)) return null;
    try {
      return await link.read(name, scene.row);
    } catch (error) {
      if (NEEDED.includes(name)) throw error;
      lost.push(error instanceof Error ? error.message : String(error));
      return null;
    }
  };
  const [stations, place, [gain, los, outage, beam, count, coefficients, delay, kind], [serving, sinr]] =
    await Promise.all([
      loadStations(version, scene),
      version.read(PLACE, scene.row),
      Promise.all(ARRAYS.map(read)),
      Promise.all(CELL.map(read)),
    ]);
  const first = firstOf(index, scene).place;
  const base = stations[link.number]?.place ?? ([Number.NaN, Number.NaN, Number.NaN] as Point);
  const most = delay ? delay.shape[1] : 0;
  const users = Array.from({ length: scene.users }, (_, number): User => {
    const relative = [0, 1, 2].map((axis) => place.data[3 * number + axis]);
    const point = relative.map((value, axis) => value + first[axis]) as Point;
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
      serving: serving?.data[number] ?? -1,
      sinr: sinr?.data[number] ?? Number.NaN,
    };
  });
  // Models are evaluated on the links of the first base station.
  const predictions = link.number === 0 && index.run?.scenes.includes(scene.row) ? await version.predictions() : null;
  const own = predictions?.scenes[scene.row];
  own?.users.number.forEach((number, i) => {
    const user = users[number];
    if (!user) return;
    const at = (place?: [number, number] | null): Point | undefined =>
      place ? [base[0] + place[0], base[1] + place[1], user.place[2]] : undefined;
    user.predicted = at(own.users.place[i]);
    user.physics = at(own.physics?.[i]);
    user.followed = own.rays?.[number]?.map((wave) => ({ ...wave, points: wave.points.map((to) => plus(base, to)) }));
  });
  return { link: link.number, base, stations, users, kept: own?.shown ?? [], masked: predictions?.masked ?? 0, lost };
}

const errorOf = (user: User, place?: Point) => (place ? distance(place, user.place) : Number.NaN);
export const locationError = (user: User) => errorOf(user, user.predicted);
export const physicsError = (user: User) => errorOf(user, user.physics);

export interface Field {
  key: string;
  label: string;
  unit: string;
  digits: number;
  of: (user: User) => number;
  /** What its values mean, where they are kinds. */
  names?: string[];
  /** Of the kinds, each for as many as there are of them. */
  colours?: string[];
}

/** Fields that users can be coloured by; `status` is the standard. */
export function fieldsOf(index: Index): Field[] {
  const { rows } = index.attributes.array;
  const kinds = index.attributes.trajectory?.kinds ?? {};
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
    ...(index.run?.rays
      ? [{ key: "physics", label: "location error of physics alone", unit: "m", digits: 1, of: physicsError }]
      : []),
    {
      key: "beam",
      label: "best beam, horizontal index",
      unit: "",
      digits: 0,
      of: (user) => (user.beam < 0 ? Number.NaN : Math.floor(user.beam / rows)),
    },
    {
      key: "beamy",
      label: "best beam, vertical index",
      unit: "",
      digits: 0,
      of: (user) => (user.beam < 0 ? Number.NaN : user.beam % rows),
    },
    ...(stored("bs/serving")
      ? [
          {
            key: "serving",
            label: "serving base station",
            unit: "",
            digits: 0,
            of: (user: User) => (user.serving < 0 ? Number.NaN : user.serving),
            names: Array.from({ length: countOf(index) }, (_, number) => `bs ${number}`),
            colours: CELLS,
          },
          { key: "sinr", label: "SINR", unit: "dB", digits: 1, of: (user: User) => user.sinr },
        ]
      : []),
    ...(stored("trajectory/kind")
      ? [
          {
            key: "kind",
            label: "kind",
            unit: "",
            digits: 0,
            of: (user: User) => (user.kind < 0 ? Number.NaN : user.kind),
            names: Object.keys(kinds)
              .sort((a, b) => Number(a) - Number(b))
              .map((key) => kinds[key]),
            colours: KINDS,
          },
        ]
      : []),
  ];
}
