// World and city: a map, filters with linked histograms, and the table of scenes.

import { useMemo } from "preact/hooks";
import { FILTERS, link } from "../address";
import { codeOfScenes } from "../code";
import { sourceOf } from "../colours";
import { filterScenes, MEASURES, shownValue, sortScenes } from "../filters";
import type { Scene } from "../index";
import { plural, shown } from "../numbers";
import { Card, Choice, Code, change, usePage } from "../ui";
import { Histogram } from "./histogram";
import { CityMap, WorldMap } from "./maps";
import { SceneTable } from "./table";

export function Overview({ city }: { city: string }) {
  const { index, scenes, version, address } = usePage();
  const { query } = address;
  const here = useMemo(() => (city ? scenes.filter((scene) => scene.city === city) : scenes), [scenes, city]);
  const chosen = useMemo(() => filterScenes(here, query), [here, query.toString()]);
  const sorted = useMemo(() => sortScenes(chosen, query.get("sort")), [chosen, query.get("sort")]);
  if (city && !here.length) {
    return (
      <p class="problem" role="alert">
        <strong>No city “{city}” in this dataset.</strong> It has {index.cities.map(({ name }) => name).join(", ")}.
      </p>
    );
  }
  const users = chosen.reduce((sum, scene) => sum + scene.users, 0);
  return (
    <>
      <h1>{city || index.attributes.title}</h1>
      <p class="lead">
        {chosen.length === here.length
          ? plural(here.length, "scene")
          : `${chosen.length.toLocaleString("en")} of ${plural(here.length, "scene")}`}
        {!city && index.cities.length > 1 && ` in ${index.cities.length} cities`}, {plural(users, "user")},{" "}
        {shown(index.attributes.frequency_hz / 1e9, 1, "GHz")}, array of {index.attributes.array.columns} ×{" "}
        {index.attributes.array.rows} antennas
      </p>
      <Filters scenes={here} />
      <div class="columns">
        {city ? <CityMap city={city} scenes={here} chosen={chosen} /> : <WorldMap scenes={here} chosen={chosen} />}
        <div class="histograms">
          {MEASURES.filter((measure) => here.some((scene) => shownValue(scene, measure) !== null)).map((measure) => (
            <Histogram key={measure.key} measure={measure} scenes={here} chosen={chosen} />
          ))}
        </div>
      </div>
      <Card title={`Scenes (${chosen.length.toLocaleString("en")})`} wide>
        <SceneTable scenes={sorted} />
      </Card>
      <Code of="these scenes" {...codeOfScenes(index, version.base, chosen)} />
    </>
  );
}

/** Choices of what is shown; those with a single value are left out. */
function Filters({ scenes }: { scenes: Scene[] }) {
  const { index, address } = usePage();
  const { query } = address;
  const values = (key: keyof Scene) => [...new Set(scenes.map((scene) => String(scene[key])))].filter(Boolean);
  const sources = values("source");
  const reasons = values("reason").sort();
  const splits = index.splits.filter((name) => name && scenes.some((scene) => scene.split === name));
  const select = (key: string, label: string, names: string[], words = (name: string) => name) =>
    (names.length > 1 || query.has(key)) && (
      <Choice
        label={label}
        value={query.get(key) ?? ""}
        options={[["", "all"], ...names.map((name): [string, string] => [name, words(name)])]}
        onChange={(value) => change({ [key]: value })}
      />
    );
  return (
    <search class="filters">
      <label class="choice">
        Find{" "}
        <input
          type="search"
          value={query.get("q") ?? ""}
          placeholder="scene or city"
          onInput={(event) => change({ q: event.currentTarget.value }, true)}
        />
      </label>
      {address.view === "world" && index.cities.length > 1 && (
        <Choice
          label="City"
          value=""
          options={[["", "all"], ...index.cities.map(({ name }): [string, string] => [name, name]).sort()]}
          onChange={(name) => {
            if (name) location.hash = link(address, "city", name);
          }}
        />
      )}
      {select("split", "Split", splits)}
      {select("status", "Outcome", values("status"))}
      {select("height", "Heights mostly from", sources, (name) => sourceOf(name).label)}
      {(reasons.length > 0 || query.has("reason")) &&
        select("reason", "Quarantined because", reasons.length > 1 ? reasons : [...reasons, ""].filter(Boolean))}
      {FILTERS.some((key) => key !== "sort" && query.has(key)) && (
        <button type="button" onClick={() => change(Object.fromEntries(FILTERS.map((key) => [key, null])))}>
          Clear filters
        </button>
      )}
    </search>
  );
}
