// The address of a view: everything that is shown stands in the part after `#`, so that it can be shared.

export interface Address {
  view: "world" | "city" | "scene";
  /** City or scene. */
  name: string;
  query: URLSearchParams;
}

export type Changes = Record<string, string | null>;

export function parse(hash: string): Address {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, name = ""] = path.split("/").map(decodeURIComponent);
  const known = view === "city" || view === "scene" ? view : "world";
  return { view: known, name: known === "world" ? "" : name, query: new URLSearchParams(query) };
}

export function format(address: Address): string {
  const query = address.query.toString().replaceAll("%2C", ",");
  const path = address.view === "world" ? "" : `${address.view}/${encodeURIComponent(address.name)}`;
  return `#/${path}${query ? `?${query}` : ""}`;
}

/** Keys that say which scenes are shown; they go along from view to view. */
export const FILTERS = ["split", "status", "height", "reason", "gain", "los", "outage", "paths", "q", "sort"];

/** The address of another view, with the same filters. */
export function link(from: Address, view: Address["view"], name = "", changes: Changes = {}): string {
  const query = new URLSearchParams();
  for (const key of FILTERS) {
    const value = from.query.get(key);
    if (value !== null) query.set(key, value);
  }
  return format({ view, name, query: changed(query, changes) });
}

export function changed(query: URLSearchParams, changes: Changes): URLSearchParams {
  const result = new URLSearchParams(query);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "") result.delete(key);
    else result.set(key, value);
  }
  return result;
}

/** A range `low..high`, either end of which may be open. */
export function parseRange(text: string | null): [number, number] | null {
  const match = /^(-?[\d.]*)\.\.(-?[\d.]*)$/.exec(text ?? "");
  if (!match) return null;
  const [low, high] = [match[1], match[2]].map((end) => (end === "" || end === "-" ? Number.NaN : Number(end)));
  return [Number.isNaN(low) ? -Infinity : low, Number.isNaN(high) ? Infinity : high];
}

export function formatRange([low, high]: [number, number]): string {
  const end = (value: number) => (Number.isFinite(value) ? String(value) : "");
  return `${end(low)}..${end(high)}`;
}
