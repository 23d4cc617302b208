// What the colours of a scene in 3D mean.

import {
  amount,
  BASE_STATION,
  type Category,
  CELLS,
  CROWN,
  materialOf,
  OTHER_STATION,
  STATUS_COLOURS,
  STATUSES,
  sourceOf,
  UNKNOWN,
} from "../colours";
import type { Crowns } from "../crowns";
import type { Recipe } from "../index";
import { countOf } from "../links";
import { plural, shown } from "../numbers";
import type { RadioMap } from "../radiomap";
import type { Field, SceneData } from "../scenedata";
import type { Building } from "../store";
import { Legend, Ramp, usePage } from "../ui";

/** Walls, roofs and ground: the recipe has one material for each. */
export function materialsOf(recipe?: Recipe): [Category, Category, Category] {
  const { wall_material, roof_material, ground_material } = recipe?.radio ?? {};
  return [materialOf(wall_material), materialOf(roof_material), materialOf(ground_material)];
}

/** What a radio map has in a cell, in words. */
export function said({ metric, data, silent }: RadioMap, cell: number): string {
  if (silent[cell]) return "no path";
  const value = data[cell];
  return (
    metric.kinds?.[value > 0.5 ? 0 : 1].label ??
    `${metric.label}: ${shown(metric.of(value), metric.digits, metric.unit)}`
  );
}

export function Key(props: {
  buildings: Building[];
  by: string;
  data?: SceneData;
  field?: Field;
  range: [number, number];
  map?: RadioMap | null;
  crowns?: Crowns | null;
}) {
  const { buildings, by, data, field, range, map, crowns } = props;
  const { index } = usePage();
  const counts = [...Map.groupBy(buildings, ({ source }) => source)].map(([source, own]): Category => {
    const { colour, label } = sourceOf(source);
    return { colour, label: `${label}: ${own.length} (${shown((100 * own.length) / buildings.length, 0)} %)` };
  });
  // Of one material, and so of one colour, may be several surfaces.
  const surfaces = Map.groupBy(["walls", "roofs", "ground"], (_, i) => materialsOf(index.attributes.recipe)[i].label);
  const materials = [...surfaces].map(([label, of]): Category => {
    const { colour } = materialsOf(index.attributes.recipe).find((one) => one.label === label) ?? materialOf();
    return { colour, label: `${of.join(", ")}: ${label}` };
  });
  return (
    <div class="keys">
      <div>
        <h3>{plural(buildings.length, "building")}</h3>
        {by === "height" && (
          <Ramp
            label="height"
            colour={amount}
            low="0 m"
            high={shown(Math.max(...buildings.map(({ height }) => height)), 0, "m")}
          />
        )}
        <Legend entries={by === "height" ? [] : by === "material" ? materials : counts} />
        {by === "material" && (
          <p class="note">The store has a material for each kind of surface, not for each building.</p>
        )}
      </div>
      {map && <MapKey map={map} several={countOf(index) > 1} />}
      {crowns && (
        <div>
          <h3>Crowns</h3>
          <Legend
            entries={[
              {
                colour: CROWN,
                label: `${plural(crowns.trees.length, "tree")}, ${plural(crowns.woods.length, "wood")}; paths through them`,
              },
            ]}
          />
        </div>
      )}
      <div>
        <h3>{data ? plural(data.users.length, "user") : "Users"}</h3>
        {field?.names && (
          <Legend
            entries={field.names.map((name, i) => ({
              label: field.key === "serving" ? `served by ${name}: ${servedBy(data, i)}` : name,
              colour: colourOfKind(field, i),
            }))}
          />
        )}
        {field && !field.names && (
          <Ramp
            label={field.label}
            colour={amount}
            low={shown(range[0], field.digits, field.unit)}
            high={shown(range[1], field.digits, field.unit)}
          />
        )}
        <Legend
          entries={STATUSES.map((label, status) => ({
            colour: field ? "var(--ink)" : STATUS_COLOURS[status],
            label: `${label}: ${data?.users.filter((one) => one.status === status).length ?? 0}`,
            shape: ["●", "◆", "▲"][status],
          }))}
        />
        <Legend entries={stationEntries(countOf(index), data?.link ?? 0, field?.key === "serving")} />
      </div>
    </div>
  );
}

/** Colour of a kind; users of none have another. */
export const colourOfKind = (field: Field, kind: number) => {
  const colours = field.colours ?? CELLS;
  return colours[kind % colours.length];
};

const servedBy = (data: SceneData | undefined, number: number) =>
  data?.users.filter(({ serving }) => serving === number).length ?? 0;

function stationEntries(count: number, link: number, byCell: boolean): (Category & { shape: string })[] {
  if (count === 1) return [{ colour: BASE_STATION, label: "base station, and where its panel faces", shape: "▲" }];
  const label = `base station ${link}, whose links are shown, and where its panel faces`;
  if (byCell) return [{ colour: CELLS[link % CELLS.length], label, shape: "▲" }];
  return [
    { colour: BASE_STATION, label, shape: "▲" },
    { colour: OTHER_STATION, label: "other base stations", shape: "▲" },
  ];
}

function MapKey({ map, several }: { map: RadioMap; several: boolean }) {
  const { metric, range, spacing, height, open, heard, median } = map;
  const { label, unit, digits, kinds } = metric;
  const none = { colour: UNKNOWN, label: `no path: ${shown(100 * (1 - heard / open), 1)} % of the cells` };
  return (
    <div>
      <h3>Ground: {label}</h3>
      {kinds ? (
        <Legend entries={kinds} />
      ) : (
        <Ramp
          label=""
          colour={metric.colour}
          low={shown(range[0], digits, unit)}
          high={shown(range[1], digits, unit)}
        />
      )}
      {heard < open && <Legend entries={[none]} />}
      <p class="note">
        {!kinds && !metric.range && open > 0 && `Median ${shown(median, digits, unit)}. `}
        At {shown(height, 1, "m")} above ground, in {plural(open, "cell")} of {shown(spacing, 1, "m")} outside
        buildings.
        {several && " Radio maps are of base station 0."}
      </p>
    </div>
  );
}
