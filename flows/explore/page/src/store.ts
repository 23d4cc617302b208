// The files of a version over HTTP: arrays of its Zarr group by zarrita, tables of buildings by hyparquet.

import { parquetMetadataAsync, parquetReadObjects } from "hyparquet";
import * as zarr from "zarrita";
import { isIntact } from "./crc32c";
import type { Index, Predictions } from "./index";
import { begin, end, expect, pending, received } from "./traffic";

type Range = { offset: number; length: number } | { suffixLength: number };

/** Something about the data that the reader should know, said where they would be shown. */
export class DataError extends Error {}

/** The name under which the progress of a scene's buildings is known. */
export const TABLE = "buildings";

const SHARD = /^\/(.+)\/c\/(\d+)(?:\/\d+)*$/;

export class Version {
  private readonly arrays = new Map<string, Promise<zarr.Array<zarr.DataType, zarr.Readable>>>();
  private readonly tables = new Map<number, Promise<Building[]>>();
  private run: Promise<Predictions | null> | null = null;
  /** Arrays that are read with an axis more than they are stored with. */
  private readonly complex = new Set<string>();

  constructor(
    readonly index: Index,
    readonly base: URL,
  ) {}

  has(name: string): boolean {
    return this.index.arrays.includes(name);
  }

  /**
   * Values of one scene, or of one of its users.
   *
   * Complex arrays have a last axis more, of real and imaginary part.
   */
  async read(name: string, row: number, ...rest: (number | null)[]): Promise<Values> {
    begin(name);
    try {
      const opened = await this.opened(name);
      const others = opened.shape.length - 1 - rest.length;
      const part = await zarr.get(opened, [row, ...rest, ...Array<null>(others).fill(null)]);
      if (typeof part !== "object" || part === null) return { data: [Number(part)], shape: [] };
      const data = part.data as unknown;
      const numbers = data instanceof zarr.BoolArray ? Uint8Array.from(data, Number) : (data as ArrayLike<number>);
      return { data: numbers, shape: part.shape };
    } catch (error) {
      throw explained(error, `data.zarr/${name}`);
    } finally {
      end(name);
    }
  }

  /** What an array says about itself. */
  async attributes(name: string): Promise<Record<string, unknown>> {
    try {
      return (await this.opened(name)).attrs;
    } catch (error) {
      throw explained(error, `data.zarr/${name}`);
    }
  }

  /** Predictions of the run, of all scenes. */
  predictions(): Promise<Predictions | null> {
    this.run ??= this.json<Predictions>("run.json", location.href).catch((error) => {
      this.run = null; // may be there the next time
      throw error;
    });
    return this.run;
  }

  private opened(name: string): Promise<zarr.Array<zarr.DataType, zarr.Readable>> {
    let array = this.arrays.get(name);
    if (!array) {
      array = zarr.open.v3(zarr.root(this as zarr.AsyncReadable).resolve(name), { kind: "array" });
      array.catch(() => this.arrays.delete(name)); // may be there the next time
      this.arrays.set(name, array);
    }
    return array;
  }

  /** One-dimensional coordinate, e.g. `trajectory/time`. */
  async coordinate(name: string): Promise<number[]> {
    const array = await zarr.open.v3(zarr.root(this as zarr.AsyncReadable).resolve(name), { kind: "array" });
    const { data } = await zarr.get(array, [null]);
    return Array.from(data as ArrayLike<number>);
  }

  /** What zarrita asks for: whole files, which are metadata here. */
  async get(key: string): Promise<Uint8Array | undefined> {
    const answer = await this.fetch(`data.zarr${key}`);
    if (answer === null) return this.absent(key);
    if (!key.endsWith("/zarr.json")) return answer.bytes;
    const metadata: ArrayMetadata = JSON.parse(new TextDecoder().decode(answer.bytes));
    if (metadata.data_type === "complex64") this.complex.add(key.replace(/^\/|\/zarr\.json$/g, ""));
    return new TextEncoder().encode(JSON.stringify(asFloats(metadata)));
  }

  /** What zarrita asks for: the index of a shard, or one of its chunks. */
  async getRange(key: string, range: Range): Promise<Uint8Array | undefined> {
    const match = SHARD.exec(key);
    const stored = match && this.complex.has(match[1]) ? key.replace(/\/0$/, "") : key;
    if (match && this.index.absent?.[match[1]]?.includes(Number(match[2]))) return undefined;
    // The index of a shard says how long its chunks are.
    const chunk = match && "length" in range ? match[1] : undefined;
    if (chunk && "length" in range) expect(chunk, range.length);
    const answer = await this.fetch(`data.zarr${stored}`, range, this.base, chunk);
    if (answer === null) return this.absent(stored);
    // zarrita asks for the index at the end of a shard first.
    if (match && "suffixLength" in range && !isIntact(answer.bytes)) {
      throw new DataError(`data.zarr${stored} is damaged: copy the version again, or build it again`);
    }
    return answer.bytes;
  }

  /** Buildings of a scene, from the table of its unit. */
  async buildings(row: number): Promise<Building[]> {
    const unit = Math.floor(row / this.index.layout.unit);
    let table = this.tables.get(unit);
    if (!table) {
      begin(TABLE);
      table = this.readTable(`buildings/unit-${String(unit).padStart(5, "0")}.parquet`);
      table.catch(() => this.tables.delete(unit)).finally(() => end(TABLE));
      this.tables.set(unit, table);
    }
    const id = this.index.scenes.id[row];
    return (await table).filter((building) => building.scene === id);
  }

  /** JSON of the site or the version, or null where there is none. */
  async json<T>(name: string, base: string | URL): Promise<T | null> {
    const answer = await this.fetch(name, undefined, base);
    return answer === null ? null : JSON.parse(new TextDecoder().decode(answer.bytes));
  }

  private async readTable(name: string): Promise<Building[]> {
    const tail = await this.fetch(name, { suffixLength: 2 ** 16 });
    if (tail === null) throw new DataError(`${name} is missing: the buildings of this scene cannot be drawn`);
    const start = tail.size - tail.bytes.length;
    const file = {
      byteLength: tail.size,
      slice: async (from: number, to = tail.size): Promise<ArrayBuffer> => {
        if (from >= start) return tail.bytes.slice(from - start, to - start).buffer as ArrayBuffer;
        const part = await this.fetch(name, { offset: from, length: to - from }, this.base, TABLE);
        if (part === null) throw new DataError(`${name} is missing`);
        return part.bytes.slice().buffer as ArrayBuffer;
      },
    };
    try {
      const metadata = await parquetMetadataAsync(file);
      const names = new Set(metadata.schema.map((element) => element.name));
      const shape = names.has("local_geometry") ? "local_geometry" : "geometry";
      const columns = ["scene_id", "osm_type", "osm_id", "height", "base", "height_source", shape];
      const chunks = metadata.row_groups.flatMap((group) => group.columns.flatMap((column) => column.meta_data ?? []));
      const wanted = chunks.filter(({ path_in_schema }) => columns.includes(path_in_schema[0]));
      const size = wanted.reduce((sum, chunk) => sum + Number(chunk.total_compressed_size), 0);
      if (size < start) expect(TABLE, size);
      const rows = await parquetReadObjects({ file, metadata, columns });
      return rows.map((row) => ({
        scene: String(row.scene_id),
        osm: `${row.osm_type}/${row.osm_id}`,
        height: Number(row.height),
        base: Number(row.base),
        source: String(row.height_source),
        polygons: polygonsOf(row[shape]),
      }));
    } catch (error) {
      throw explained(error, name);
    }
  }

  /** A shard that is not there: of fill values only, or lost. */
  private absent(key: string): undefined {
    // A copy without its manifest does not say which.
    if (this.index.absent === null && SHARD.test(key)) return undefined;
    throw new DataError(`data.zarr${key} is missing: copy the version again, or build it again`);
  }

  private async fetch(
    name: string,
    range?: Range,
    base: string | URL = this.base,
    part?: string,
  ): Promise<{ bytes: Uint8Array; size: number } | null> {
    const address = new URL(name, base);
    const headers: Record<string, string> = {};
    if (range && "suffixLength" in range) headers.Range = `bytes=-${range.suffixLength}`;
    else if (range) headers.Range = `bytes=${range.offset}-${range.offset + range.length - 1}`;
    pending(1);
    try {
      let answer: Response;
      try {
        answer = await fetch(address, { headers });
      } catch {
        throw new DataError(
          `${address.href} cannot be reached: the server is gone, or allows no other page to read it`,
        );
      }
      // Object storage answers 403 for a file that is missing where listing is not allowed.
      if (answer.status === 404 || answer.status === 403) return null;
      if (!answer.ok) throw new DataError(`${address.href}: the server answers ${answer.status}`);
      const bytes = await received(answer, part);
      const total = /\/(\d+)$/.exec(answer.headers.get("Content-Range") ?? "");
      if (answer.status === 206 || !range) return { bytes, size: total ? Number(total[1]) : bytes.length };
      // A server that knows no ranges sends the whole file.
      const from = "suffixLength" in range ? Math.max(0, bytes.length - range.suffixLength) : range.offset;
      const to = "suffixLength" in range ? bytes.length : range.offset + range.length;
      return { bytes: bytes.slice(from, to), size: bytes.length };
    } finally {
      pending(-1);
    }
  }
}

export interface Values {
  data: ArrayLike<number>;
  shape: number[];
}

export interface Building {
  scene: string;
  osm: string;
  height: number;
  base: number;
  source: string;
  /** Rings of every polygon in metres, the outer one first. */
  polygons: [number, number][][][];
}

type ArrayMetadata = {
  data_type: unknown;
  shape: number[];
  dimension_names?: string[];
  fill_value: unknown;
  chunk_grid: { configuration: { chunk_shape: number[] } };
  codecs: Codec[];
};
type Codec = { name: string; configuration?: { chunk_shape?: number[]; codecs?: Codec[] } };

/** Metadata of a complex64 array as those of a float32 array with an axis more: the stored bytes are the same. */
function asFloats(metadata: ArrayMetadata): ArrayMetadata {
  if (metadata.data_type !== "complex64") return metadata;
  metadata.data_type = "float32";
  metadata.fill_value = 0;
  metadata.shape.push(2);
  metadata.dimension_names?.push("part");
  metadata.chunk_grid.configuration.chunk_shape.push(2);
  for (const codec of metadata.codecs) {
    if (codec.name === "sharding_indexed") codec.configuration?.chunk_shape?.push(2);
  }
  return metadata;
}

function polygonsOf(value: unknown): [number, number][][][] {
  // hyparquet decodes the geometry columns that GeoParquet's metadata name.
  const { type, coordinates } = value as { type: string; coordinates: unknown };
  if (type === "Polygon") return [coordinates as [number, number][][]];
  if (type === "MultiPolygon") return coordinates as [number, number][][][];
  return [];
}

/** An error of ours, where it lies behind one of zarrita's; else what a broken file looks like. */
function explained(error: unknown, name: string): DataError {
  for (let one = error; one instanceof Error; one = one.cause) {
    if (one instanceof DataError) return one;
  }
  const text = error instanceof Error ? error.message : String(error);
  return new DataError(`${name} cannot be decoded (${text}): copy the version again, or build it again`);
}
