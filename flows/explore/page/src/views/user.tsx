// One user: channel over the array, its spectrum, paths, delays; over time for a user that moves.

import * as Plot from "@observablehq/plot";
import { useEffect, useMemo, useState } from "preact/hooks";
import { codeOfUser } from "../code";
import { STATUSES } from "../colours";
import type { Scene } from "../index";
import { countOf, firstOf } from "../links";
import {
  binOfBeam,
  centred,
  degrees,
  delayProfile,
  magnitude,
  phase,
  SPEED_OF_LIGHT,
  shown,
  spectrum,
} from "../numbers";
import { describe, type Path } from "../paths";
import { locationError, physicsError, type SceneData, type User } from "../scenedata";
import { Card, Chart, Code, change, Level, type Loaded, useLink, useLoaded, usePage, Waiting } from "../ui";
import {
  CHANNEL,
  isMoving,
  loadChannel,
  loadMotion,
  loadPaths,
  MOTION,
  MOVING_CHANNEL,
  type Motion,
  PATHS,
  type Snapshot,
  userParts,
} from "../userdata";
import { Heat } from "./heat";
import { Polar } from "./polar";
import { FollowedCard, KeptCards } from "./predictions";

export function UserView({ scene, data, user }: { scene: Scene; data: SceneData; user: User }) {
  const { version, index, address } = usePage();
  const link = useLink();
  const moving = isMoving(index);
  const step = moving ? Number(address.query.get("t") ?? 0) : null;
  const motion = useLoaded(() => loadMotion(link, scene, user.number, firstOf(index, scene).place), []);
  const channel = useLoaded(() => loadChannel(link, scene, user.number, step), [step]);
  const paths = useLoaded(() => loadPaths(link, scene, user.number), []);
  const kinds = index.attributes.trajectory?.kinds ?? {};
  return (
    <section class="user">
      <h2>
        User {user.number}: {STATUSES[user.status]}
        {countOf(index) > 1 && ` for base station ${link.number}`}
      </h2>
      <dl class="facts">
        <Fact name="Path gain" value={shown(user.gain, 1, "dB")} />
        <Fact name="Distance" value={shown(user.distance, 1, "m")} />
        <Fact name="Position (x, y, z)" value={`${user.place.map((value) => shown(value, 1)).join(", ")} m`} />
        {countOf(index) > 1 && (
          <>
            <Fact name="Served by" value={user.serving < 0 ? "none" : `base station ${user.serving}`} />
            <Fact name="SINR" value={shown(user.sinr, 1, "dB")} />
          </>
        )}
        <Fact name="Best beam" value={user.beam < 0 ? "none" : String(user.beam)} />
        {!Number.isNaN(user.paths) && <Fact name="Paths found" value={shown(user.paths, 0)} />}
        {!Number.isNaN(user.spread) && <Fact name="RMS delay spread" value={shown(1e9 * user.spread, 1, "ns")} />}
        {user.predicted && <Fact name="Location error of the model" value={shown(locationError(user), 1, "m")} />}
        {user.physics && <Fact name="Location error of physics alone" value={shown(physicsError(user), 1, "m")} />}
        {user.kind >= 0 && <Fact name="Kind" value={kinds[String(user.kind)] ?? String(user.kind)} />}
      </dl>
      {moving && <TimeSlider motion={motion} step={step ?? 0} />}
      <Level.Provider value="h3">
        <div class="grid">
          <ChannelCards channel={channel} scene={scene} user={user} step={step} />
          <KeptCards scene={scene} data={data} user={user} />
          {user.followed && <FollowedCard user={user} base={data.base} />}
          <PathCards paths={paths} channel={channel} scene={scene} user={user} stored={version.has("paths/gain")} />
        </div>
      </Level.Provider>
      <Code
        of={`user ${user.number}`}
        {...codeOfUser(index, version.base, scene, user.number, step ?? 0, link.number)}
      />
    </section>
  );
}

/** Name of the pictures of a user. */
const nameOf = (scene: Scene, user: User, link: number) =>
  `${scene.id}-user-${user.number}${link ? `-bs-${link}` : ""}`;

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function TimeSlider({ motion, step }: { motion: Loaded<Motion | null>; step: number }) {
  const [playing, setPlaying] = useState(false);
  const steps = motion.value?.time.length ?? 1;
  useEffect(() => {
    if (!playing) return;
    const next = setTimeout(() => change({ t: String((step + 1) % steps) }, true), 250);
    return () => clearTimeout(next);
  }, [playing, step, steps]);
  if (!motion.value) return <Waiting of={motion} what="where the user moves" parts={MOTION} />;
  const { time, places, speeds } = motion.value;
  const words = `${shown(1e3 * time[step], 2, "ms")} of ${shown(1e3 * time[steps - 1], 2, "ms")}`;
  return (
    <div class="slider">
      <button type="button" onClick={() => setPlaying(!playing)} aria-pressed={playing}>
        {playing ? "Stop" : "Play"}
      </button>
      <label>
        Time{" "}
        <input
          type="range"
          min={0}
          max={steps - 1}
          value={step}
          aria-valuetext={words}
          onInput={(event) => change({ t: event.currentTarget.value }, true)}
        />
      </label>
      <span>
        snapshot {step}: {words}, {shown(speeds[step], 1, "m/s")}, at{" "}
        {places[step].map((value) => shown(value, 1)).join(", ")} m
      </span>
    </div>
  );
}

function ChannelCards(props: { channel: Loaded<Snapshot>; scene: Scene; user: User; step: number | null }) {
  const { channel, scene, user, step } = props;
  const link = useLink();
  const snapshot = channel.value?.channel;
  const grids = useMemo(
    () => snapshot && { magnitude: magnitude(snapshot), phase: phase(snapshot), spectrum: spectrum(snapshot) },
    [snapshot],
  );
  if (!snapshot || !grids) {
    return (
      <Card title="Channel">
        <Waiting of={channel} what="the channel" parts={userParts(link, step === null ? CHANNEL : MOVING_CHANNEL)} />
      </Card>
    );
  }
  if (grids.magnitude.data.every(Number.isNaN)) {
    return (
      <Card title="Channel">
        {user.status === 2 ? (
          <p class="note">The channel is 0: this user is in outage.</p>
        ) : (
          <p class="problem" role="alert">
            <strong>The channel is 0</strong> although this user has paths: validate the store.
          </p>
        )}
      </Card>
    );
  }
  const name = nameOf(scene, user, link.number);
  const { columns, rows } = snapshot;
  const beam = user.beam >= 0 && !step ? binOfBeam(user.beam, columns, rows) : null;
  return (
    <>
      <Card
        title="Channel: |csi|"
        name={`${name}-magnitude`}
        note={step === null ? undefined : "In the middle of the band."}
      >
        <Heat values={grids.magnitude} unit="dB" label="power gain" axes={["antenna x", "antenna y"]} />
      </Card>
      <Card title="Channel: phase" name={`${name}-phase`}>
        <Heat values={grids.phase} unit="°" label="phase" axes={["antenna x", "antenna y"]} cyclic />
      </Card>
      <Card
        title="Spatial spectrum"
        name={`${name}-spectrum`}
        note={
          beam
            ? `|DFT|², zero in the middle. The mark is the codebook's best beam, ${user.beam}, whose index is the bin's negated.`
            : "|DFT|², zero in the middle."
        }
      >
        <Heat
          values={grids.spectrum}
          unit="dB"
          label="power"
          axes={["kx", "ky"]}
          offset={[-Math.floor(columns / 2), -Math.floor(rows / 2)]}
          depth={50}
          mark={beam ? [centred(beam[0], columns), centred(beam[1], rows)] : undefined}
        />
      </Card>
    </>
  );
}

function PathCards(props: {
  paths: Loaded<Path[]>;
  channel: Loaded<Snapshot>;
  scene: Scene;
  user: User;
  stored: boolean;
}) {
  const { paths, channel, scene, user, stored } = props;
  const { address } = usePage();
  const link = useLink();
  const name = nameOf(scene, user, link.number);
  const chosen = Number(address.query.get("path") ?? Number.NaN);
  const wideband = channel.value?.wideband;
  const taps = wideband ? delayProfile(wideband.parts, wideband.subcarriers, wideband.spacing) : [];
  const strongest = Math.max(...taps.map(({ power }) => power).filter((power) => !Number.isNaN(power)));
  const profile = wideband && (
    <Card
      title="Delay profile of the band"
      name={`${name}-band`}
      note="Inverse DFT over the subcarriers, at the array's first antenna."
    >
      <Chart
        label="power over delay"
        keys={[wideband]}
        make={() => ({
          height: 240,
          marginBottom: 38,
          x: { label: "delay, ns", grid: true },
          y: { label: "power, dB", grid: true, domain: [strongest - 60, strongest + 3], clamp: true },
          marks: [
            Plot.lineY(taps, {
              x: (tap) => 1e9 * tap.delay,
              y: "power",
              stroke: "var(--accent)",
              strokeWidth: 2,
            }),
          ],
        })}
      />
    </Card>
  );
  if (!stored) {
    return (
      <>
        {profile}
        <Card title="Paths">
          <p class="note">This store keeps no paths (features.paths: false).</p>
        </Card>
      </>
    );
  }
  if (!paths.value) {
    return (
      <Card title="Paths">
        <Waiting of={paths} what="the paths" parts={userParts(link, PATHS)} />
      </Card>
    );
  }
  if (!paths.value.length) {
    return (
      <Card title="Paths">
        <p class="note">No path leads to this user.</p>
      </Card>
    );
  }
  const rows = paths.value.map((path, number) => ({ ...path, number }));
  const floor = Math.min(...rows.map(({ gain }) => gain)) - 5;
  const [first, last] = [Math.min(...rows.map(({ delay }) => delay)), Math.max(...rows.map(({ delay }) => delay))];
  const margin = Math.max(10, 0.03e9 * (last - first));
  const moves = rows.some(({ doppler }) => doppler !== 0);
  const green = link.has("paths/vegetation_loss");
  return (
    <>
      <Card title="Delay profile" name={`${name}-delays`} double>
        <Chart
          label="gain of every path over its delay"
          keys={[paths.value, chosen]}
          make={() => ({
            height: 330,
            marginLeft: 48,
            marginBottom: 38,
            x: { label: "delay, ns", grid: true, domain: [1e9 * first - margin, 1e9 * last + margin] },
            y: { label: "path gain, dB", grid: true, domain: [floor, Math.max(...rows.map(({ gain }) => gain)) + 3] },
            marks: [
              Plot.ruleX(rows, {
                x: (path) => 1e9 * path.delay,
                y1: floor,
                y2: "gain",
                stroke: "var(--accent)",
                strokeOpacity: 0.6,
              }),
              Plot.dot(rows, {
                x: (path) => 1e9 * path.delay,
                y: "gain",
                fill: (path) => (path.number === chosen ? "var(--mark)" : "var(--accent)"),
                r: (path: { number: number }) => (path.number === chosen ? 6 : 3.5),
                symbol: (path) => (path.interactions.length ? "diamond" : "circle"),
                title: (path) => `path ${path.number}: ${describe(path.interactions)}, ${shown(path.gain, 1, "dB")}`,
              }),
            ],
            r: { type: "identity" },
            symbol: { type: "identity" },
            color: { type: "identity" },
          })}
        />
      </Card>
      <Card
        title="Directions of the paths"
        name={`${name}-directions`}
        note="Seen from above, north is up; the further out, the stronger the path. Circles leave the base station, triangles arrive at the user."
      >
        <Polar paths={paths.value} chosen={chosen} />
      </Card>
      <Card title={`Paths (${rows.length} stored of ${shown(user.paths, 0)} found)`} wide>
        <section class="table paths" aria-label="Paths">
          <table>
            <thead>
              <tr>
                {[
                  "Path",
                  "Gain,\u00a0dB",
                  "Phase,\u00a0°",
                  "Delay,\u00a0ns",
                  "Length,\u00a0m",
                  "Departure zenith,\u00a0°",
                  "azimuth,\u00a0°",
                  "Arrival zenith,\u00a0°",
                  "azimuth,\u00a0°",
                ].map((label, i) => (
                  <th key={`${label}${i}`} class="number">
                    {label}
                  </th>
                ))}
                {moves && <th class="number">Doppler, Hz</th>}
                {green && <th class="number">Crowns,&nbsp;dB</th>}
                <th>Interactions from the base station on</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((path) => (
                <tr key={path.number} class={path.number === chosen ? "chosen" : ""}>
                  <td class="number">
                    <button
                      type="button"
                      class="link"
                      aria-label={`Show path ${path.number} in the scene`}
                      aria-pressed={path.number === chosen}
                      onClick={() => change({ path: path.number === chosen ? null : String(path.number) })}
                    >
                      {path.number}
                    </button>
                  </td>
                  <td class="number">{shown(path.gain, 1)}</td>
                  <td class="number">{shown(path.phase, 0)}</td>
                  <td class="number">{shown(1e9 * path.delay, 1)}</td>
                  <td class="number">{shown(path.delay * SPEED_OF_LIGHT, 1)}</td>
                  {[path.departure, path.arrival].flatMap(({ zenith, azimuth }, end) => [
                    <td key={`z${end}`} class="number">
                      {shown(degrees(zenith), 1)}
                    </td>,
                    <td key={`a${end}`} class="number">
                      {shown(degrees(azimuth), 1)}
                    </td>,
                  ])}
                  {moves && <td class="number">{shown(path.doppler, 0)}</td>}
                  {green && <td class="number">{path.loss > 0 ? shown(path.loss, 1) : "–"}</td>}
                  <td>{describe(path.interactions)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      </Card>
      {profile}
    </>
  );
}
