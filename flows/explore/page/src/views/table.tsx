// The table of scenes: of any length, as only the rows in sight are drawn.

import { useRef, useState } from "preact/hooks";
import { link } from "../address";
import { sourceOf } from "../colours";
import { MEASURES, shownValue } from "../filters";
import type { Scene } from "../index";
import { shown } from "../numbers";
import { change, usePage } from "../ui";

const ROW = 34;
const SEEN = 24;

type Column = { key: keyof Scene; label: string; number?: boolean; cell: (scene: Scene) => string };

const COLUMNS: Column[] = [
  { key: "id", label: "Scene", cell: (scene) => scene.id },
  { key: "city", label: "City", cell: (scene) => scene.city },
  { key: "split", label: "Split", cell: (scene) => scene.split },
  { key: "status", label: "Outcome", cell: (scene) => scene.status },
  { key: "users", label: "Users", number: true, cell: (scene) => shown(scene.users, 0) },
  ...MEASURES.map((measure): Column => {
    const names = { gain: "Gain, dB", los: "LoS, %", outage: "Outage, %", paths: "Paths" };
    const cell = (scene: Scene) => shown(shownValue(scene, measure), measure.digits);
    return { key: measure.key, label: names[measure.key], number: true, cell };
  }),
  {
    key: "coverage",
    label: "Built, %",
    number: true,
    cell: (scene) => shown(scene.coverage && 100 * scene.coverage, 0),
  },
  { key: "source", label: "Heights mostly from", cell: (scene) => (scene.source ? sourceOf(scene.source).label : "–") },
  { key: "reason", label: "Quarantined because", cell: (scene) => scene.reason },
];

export function SceneTable({ scenes }: { scenes: Scene[] }) {
  const { address, index } = usePage();
  const [first, setFirst] = useState(0);
  const box = useRef<HTMLElement>(null);
  const sort = address.query.get("sort") ?? "";
  const columns = COLUMNS.filter(
    ({ key }) =>
      (key !== "reason" || index.reasons.length > 0) &&
      (key !== "source" || Object.keys(index.scenes.heights).length > 0) &&
      (key !== "paths" || index.arrays.includes("paths/n_paths")) &&
      (key !== "city" || address.view !== "city"),
  );
  if (!scenes.length) return <p class="note">No scene passes the filters.</p>;
  // A list that has become shorter may end above where it was scrolled to.
  const start = Math.max(0, Math.min(first, scenes.length - SEEN));
  const rows = scenes.slice(start, start + SEEN);
  const onScroll = () => setFirst(Math.max(0, Math.floor((box.current?.scrollTop ?? 0) / ROW) - 4));
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: whoever uses keys scrolls it
    <section class="table" ref={box} onScroll={onScroll} tabIndex={0} aria-label="Scenes">
      <table aria-rowcount={scenes.length + 1}>
        <thead>
          <tr>
            {columns.map(({ key, label, number }) => {
              const [up, down] = [sort === key, sort === `-${key}`];
              return (
                <th
                  key={key}
                  class={number ? "number" : ""}
                  aria-sort={up ? "ascending" : down ? "descending" : "none"}
                >
                  <button type="button" onClick={() => change({ sort: up ? `-${key}` : down ? null : key }, true)}>
                    {label}
                    <span aria-hidden="true">{up ? " ▲" : down ? " ▼" : ""}</span>
                  </button>
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {start > 0 && <tr style={{ height: `${start * ROW}px` }} />}
          {rows.map((scene, i) => (
            <tr key={scene.row} aria-rowindex={start + i + 2}>
              {columns.map(({ key, cell, number }) => (
                <td key={key} class={number ? "number" : ""}>
                  {key === "id" ? <a href={link(address, "scene", scene.id)}>{scene.id}</a> : cell(scene)}
                </td>
              ))}
            </tr>
          ))}
          {start + rows.length < scenes.length && (
            <tr style={{ height: `${(scenes.length - start - rows.length) * ROW}px` }} />
          )}
        </tbody>
      </table>
    </section>
  );
}
