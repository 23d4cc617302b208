// The index that `wavecity explore` writes: types, and one object per scene made of its columns.

import { begin, end, expect, received } from "./traffic";

export interface Panel {
  columns: number;
  rows: number;
  spacing_wavelengths: number;
}

export interface Recipe {
  radio?: {
    azimuth?: number;
    downtilt?: number;
    wall_material?: string;
    roof_material?: string;
    ground_material?: string;
  };
  solver?: { gain_floor?: number };
  name?: string;
}

export interface Attributes {
  title: string;
  fingerprint: string;
  attribution: string;
  licence: string;
  frequency_hz: number;
  array: Panel;
  bs_position_m: [number, number, number];
  tile_size_m: number;
  recipe?: Recipe;
  /** Where there are several. */
  base_stations?: { count: number; transmit_power_dbm: number };
  /** Where paths lose in crowns. */
  vegetation?: { attenuation_db_per_m: number; largest_loss_db: number };
  trajectory?: { interval_s: number; steps: number; kinds: Record<string, string> };
  imported?: { height?: boolean; los?: boolean };
}

export interface City {
  name: string;
  country: string;
  latitude: number | null;
  longitude: number | null;
}

type Numbers = (number | null)[];

export interface Index {
  format: number;
  store: string;
  version: string;
  data: string;
  attributes: Attributes;
  layout: { scenes: number; users: number; unit: number };
  arrays: string[];
  files: string[];
  cities: City[];
  splits: string[];
  reasons: string[];
  scenes: {
    id: string[];
    city: number[];
    split: number[];
    status: string[];
    stage: string[];
    reason: Numbers;
    latitude: Numbers;
    longitude: Numbers;
    users: number[];
    bs_shift: Numbers;
    coverage: Numbers;
    heights: Record<string, number[]>;
    los: Numbers;
    outage: Numbers;
    gain: Numbers;
    gain_low: Numbers;
    gain_high: Numbers;
    paths: Numbers;
  };
  absent: Record<string, number[]> | null;
  /** Whether the version has tables of buildings. */
  buildings: boolean;
  damaged: Record<string, string>;
  run?: RunSummary;
}

export interface RunSummary {
  name: string;
  /** Rows of the scenes that have predictions. */
  scenes: number[];
  /** Whether waves were kept that the model followed through the scene. */
  rays: boolean;
}

/** A wave that was recovered from what the model saw, and followed through the scene. */
export interface Followed {
  /** dB. */
  gain: number;
  /** Whether it comes down where a user can be. */
  lands: boolean;
  /** From the base station to its end, in m from the base station. */
  points: [number, number, number][];
}

/** What a model predicted of one user whose predictions were kept whole. */
export interface Kept {
  user: number;
  /** Spatial spectrum (kx, ky), as shares of its mean. */
  spectrum: number[][];
  /** Probability that a patch is built (row, column); null where it was not hidden. */
  occupancy: (number | null)[][] | null;
}

export interface Predictions {
  name: string;
  masked: number;
  scenes: Record<string, ScenePredictions>;
}

export interface ScenePredictions {
  users: { number: number[]; place: ([number, number] | null)[] };
  shown: Kept[];
  /** Where physics alone puts the users. */
  physics?: [number, number][];
  /** By user. */
  rays?: Record<string, Followed[]>;
}

export interface Scene {
  row: number;
  id: string;
  city: string;
  country: string;
  split: string;
  status: string;
  stage: string;
  reason: string;
  latitude: number | null;
  longitude: number | null;
  users: number;
  shift: number;
  coverage: number | null;
  heights: Record<string, number>;
  /** Where most of its buildings' heights come from. */
  source: string;
  los: number | null;
  outage: number | null;
  gain: number | null;
  gainLow: number | null;
  gainHigh: number | null;
  paths: number | null;
}

export const FORMAT = 1;
export const INDEX = "explore.json";

export async function loadIndex(): Promise<Index> {
  begin(INDEX);
  const answer = await fetch(INDEX, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`explore.json: the server answers ${answer.status}`);
  expect(INDEX, Number(answer.headers.get("Content-Length") ?? 0));
  const index: Index = JSON.parse(new TextDecoder().decode(await received(answer, INDEX)));
  end(INDEX);
  if (index.format !== FORMAT) {
    throw new Error(`explore.json has format ${index.format}, this page reads ${FORMAT}: write the site again`);
  }
  return index;
}

export function scenesOf(index: Index): Scene[] {
  const columns = index.scenes;
  return columns.id.map((id, row) => {
    const heights = Object.fromEntries(
      Object.entries(columns.heights).flatMap(([name, counts]) => (counts[row] ? [[name, counts[row]]] : [])),
    );
    const most = Object.entries(heights).sort((a, b) => b[1] - a[1])[0];
    const city = index.cities[columns.city[row]];
    const reason = columns.reason[row];
    return {
      row,
      id,
      city: city.name,
      country: city.country,
      split: index.splits[columns.split[row]],
      status: columns.status[row],
      stage: columns.stage[row],
      reason: reason === null ? "" : index.reasons[reason],
      latitude: columns.latitude[row],
      longitude: columns.longitude[row],
      users: columns.users[row],
      shift: columns.bs_shift[row] ?? 0,
      coverage: columns.coverage[row],
      heights,
      source: most ? most[0] : "",
      los: columns.los[row],
      outage: columns.outage[row],
      gain: columns.gain[row],
      gainLow: columns.gain_low[row],
      gainHigh: columns.gain_high[row],
      paths: columns.paths[row],
    };
  });
}
