// One scene: in 3D with its users, facts, and the view of a chosen user.

import { lazy, Suspense } from "preact/compat";
import { useMemo } from "preact/hooks";
import { codeOfScene } from "../code";
import { STATUSES } from "../colours";
import type { Scene } from "../index";
import { countOf } from "../links";
import { coordinates, plural, shown } from "../numbers";
import { type Field, fieldsOf, loadScene, type SceneData, sceneParts } from "../scenedata";
import { Card, Code, change, useLink, useLoaded, usePage, Waiting } from "../ui";
import { UserView } from "./user";

// three.js comes with the first scene.
const Stage = lazy(() => import("./space"));

export function SceneView({ scene }: { scene: Scene | undefined }) {
  const { version, index, address } = usePage();
  const link = useLink();
  if (!scene) {
    return (
      <p class="problem" role="alert">
        <strong>No scene “{address.name}” in this dataset.</strong> The address may be of another version.
      </p>
    );
  }
  const heading = (
    <>
      <h1>{scene.id}</h1>
      <p class="lead">
        {[scene.city, scene.country].filter(Boolean).join(", ")}
        {scene.split && `, split ${scene.split}`}
        {scene.latitude !== null && scene.longitude !== null && `, ${coordinates(scene.latitude, scene.longitude)}`}
      </p>
    </>
  );
  if (scene.status !== "done") {
    return (
      <>
        {heading}
        <p class="problem" role="alert">
          <strong>This scene is {scene.status}.</strong>{" "}
          {scene.reason && `It failed at stage “${scene.stage}”: ${scene.reason}.`} There is nothing to draw; the
          traceback is in the version's ledger.json.
        </p>
      </>
    );
  }
  return (
    <>
      {heading}
      <Opened scene={scene} key={scene.id} />
      <Code of={scene.id} {...codeOfScene(index, version.base, scene, address.query.get("map"), link.number)} />
    </>
  );
}

function Opened({ scene }: { scene: Scene }) {
  const { index, address } = usePage();
  const link = useLink();
  const loaded = useLoaded(() => loadScene(link, scene), [scene.id, link]);
  const named = address.query.get("bs");
  const fields = useMemo(() => fieldsOf(index), [index]);
  const text = address.query.get("user");
  const number = text !== null && /^\d+$/.test(text) ? Number(text) : null;
  const data = loaded.value;
  const user = number !== null ? data?.users[number] : undefined;
  return (
    <>
      {!data && <Waiting of={loaded} what="the users of the scene" parts={sceneParts(link)} />}
      <Suspense fallback={<p class="waiting">Loading the 3D view …</p>}>
        <Stage scene={scene} data={data} user={user} fields={fields} />
      </Suspense>
      {named !== null && named !== String(link.number) && (
        <p class="problem" role="alert">
          <strong>No base station {named} in this dataset.</strong> It has{" "}
          {countOf(index) > 1 ? `base stations 0 to ${countOf(index) - 1}` : "one base station"}; links of base station
          0 are shown.
        </p>
      )}
      {data && !data.stations[data.link] && (
        <p class="problem" role="alert">
          <strong>Base station {data.link} found no place in this scene.</strong> Nobody hears it.
        </p>
      )}
      {data?.lost.map((what) => (
        <p class="problem" role="alert" key={what}>
          <strong>Cannot show all that is known of the users.</strong> {what}
        </p>
      ))}
      {data && <UserPicker data={data} fields={fields} chosen={number} />}
      {data && text !== null && !user && (
        <p class="problem" role="alert">
          <strong>No user {text} in this scene.</strong> It has users 0 to {data.users.length - 1}.
        </p>
      )}
      {data && user && <UserView key={`${user.number} ${link.number}`} scene={scene} data={data} user={user} />}
    </>
  );
}

/** The users as a list to choose from, for the keyboard and for finding the odd ones. */
function UserPicker({ data, fields, chosen }: { data: SceneData; fields: Field[]; chosen: number | null }) {
  const { address } = usePage();
  const key = address.query.get("order") ?? "number";
  const field = fields.find((one) => one.key === key.replace(/^-/, ""));
  const sign = key.startsWith("-") ? -1 : 1;
  const users = useMemo(() => {
    const value = field ? field.of : (user: SceneData["users"][number]) => user.number;
    return [...data.users].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
      return sign * (x - y);
    });
  }, [data, key]);
  const columns = [{ key: "number", label: "User" }, ...fields.map((one) => ({ key: one.key, label: heading(one) }))];
  return (
    <Card title={`Users (${data.users.length.toLocaleString("en")})`} wide>
      <section class="table users" aria-label="Users">
        <table>
          <thead>
            <tr>
              <th>Status</th>
              {columns.map((column) => (
                <th
                  key={column.key}
                  class="number"
                  aria-sort={key === column.key ? "ascending" : key === `-${column.key}` ? "descending" : "none"}
                >
                  <button
                    type="button"
                    onClick={() => change({ order: key === column.key ? `-${column.key}` : column.key }, true)}
                  >
                    {column.label}
                    <span aria-hidden="true">{key === column.key ? " ▲" : key === `-${column.key}` ? " ▼" : ""}</span>
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {users.slice(0, MOST).map((user) => (
              <tr key={user.number} class={user.number === chosen ? "chosen" : ""}>
                <td>{STATUSES[user.status]}</td>
                <td class="number">
                  <button
                    type="button"
                    class="link"
                    onClick={() => change({ user: String(user.number), t: null, path: null })}
                  >
                    {user.number}
                  </button>
                </td>
                {fields.map((one) => (
                  <td key={one.key} class="number">
                    {one.names?.[one.of(user)] ?? shown(one.of(user), one.digits)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {users.length > MOST && (
        <p class="note">
          The first {MOST} of {plural(users.length, "user")} in this order; click in the scene for any other.
        </p>
      )}
    </Card>
  );
}

// Rows of a table that browsers lay out at once.
const MOST = 300;

const heading = ({ label, unit }: Field) =>
  `${label[0].toUpperCase()}${label.slice(1)}${unit ? `, ${unit}` : ""}`
    .replace(" from the base station", "")
    .replace("Best beam, horizontal index", "Beam kx")
    .replace("Best beam, vertical index", "Beam ky")
    .replace("Number of paths", "Paths")
    .replace("RMS delay spread", "Delay spread")
    .replace("Location error of the model", "Model error")
    .replace("Location error of physics alone", "Physics error");
