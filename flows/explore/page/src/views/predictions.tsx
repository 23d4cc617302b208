// What a run's model predicted of users, next to the truth.

import type { Scene } from "../index";
import { binOfBeam, centred, decibel, degrees, grid, plural, quantile, shown } from "../numbers";
import { distance, type Point } from "../rays";
import { locationError, type SceneData, type User } from "../scenedata";
import { Card, useLoaded, usePage, Waiting } from "../ui";
import { Heat } from "./heat";

/** What the lines of the predictions are. */
export function Located({ data, run }: { data: SceneData; run: string }) {
  const errors = data.users.map(locationError).filter((error) => !Number.isNaN(error));
  if (!errors.length)
    return <p class="note">The run {run} has no predictions of this scene: it is of no test split.</p>;
  return (
    <p class="note">
      Predictions of the run {run}: lines lead from {plural(errors.length, "user")} to where the model locates them,
      seeing {shown(100 * (1 - data.masked), 0)} % of the channel; median error {shown(quantile(errors, 0.5), 1, "m")}.
    </p>
  );
}

/** What the waves are that the run's model followed. */
export function FollowedNote({ user, run }: { user: User; run: string }) {
  const waves = user.followed ?? [];
  const down = waves.filter(({ lands }) => lands).length;
  return (
    <p class="note">
      <span class="line" style={{ background: "var(--followed)" }} aria-hidden="true" /> {plural(waves.length, "wave")}{" "}
      that {run} recovered of user {user.number} from what it saw, followed through the scene by reflections alone:{" "}
      {down === 1 ? "1 comes down" : `${down} come down`} where a user can be (with a mark there)
      {down < waves.length && ", the others (dashed) on a roof, or not at all"}. A wave of a diffracted path leaves its
      way at an edge, which is not drawn.
    </p>
  );
}

/** Predictions of the run for users of which they were kept, next to the truth. */
export function KeptCards({ scene, data, user }: { scene: Scene; data: SceneData; user: User }) {
  const { index, version } = usePage();
  const kept = data.kept.find((one) => one.user === user.number);
  const truth = useLoaded(async () => (kept?.occupancy ? version.read("occupancy", scene.row) : null), []);
  if (!kept) return null;
  const { columns, rows } = index.attributes.array;
  const [width, height] = [kept.spectrum.length, kept.spectrum[0].length];
  const whole = width === columns && height === rows;
  const half = [Math.floor(width / 2), Math.floor(height / 2)];
  const spectrum = grid(width, height, (x, y) =>
    // Rounded in the file: what is 0 there is far below the scale.
    decibel(Math.max(1e-6, kept.spectrum[(x - half[0] + width) % width][(y - half[1] + height) % height])),
  );
  let [best, most] = [0, -Infinity];
  kept.spectrum.forEach((line, kx) => {
    line.forEach((value, ky) => {
      if (value > most) [best, most] = [((width - kx) % width) * height + ((height - ky) % height), value];
    });
  });
  const mark = binOfBeam(best, width, height);
  const patches = kept.occupancy;
  const side = patches?.length ?? 0;
  const name = `${scene.id}-user-${user.number}`;
  const saw = `The model saw ${shown(100 * (1 - data.masked), 0)} % of the channel.`;
  return (
    <>
      <Card
        title={`Spectrum predicted by ${index.run?.name}`}
        name={`${name}-predicted`}
        note={`${saw} ${whole ? `Its strongest beam is ${best}, marked; the codebook's best is ${user.beam}.` : `Its spectrum has ${width} × ${height} bins.`}`}
      >
        <Heat
          values={spectrum}
          unit="dB above the mean"
          label="power"
          axes={["kx", "ky"]}
          offset={[-half[0], -half[1]]}
          depth={50}
          mark={[centred(mark[0], width), centred(mark[1], height)]}
        />
      </Card>
      {patches && (
        <Card
          title={`Built patches predicted by ${index.run?.name}`}
          name={`${name}-occupancy`}
          note="North is up. Patches that the model saw are left empty."
        >
          <Heat
            values={grid(side, side, (x, y) => patches[y][x] ?? Number.NaN)}
            label="probability that it is built"
            range={[0, 1]}
            axes={["patch to the east", "patch to the south"]}
          />
        </Card>
      )}
      {patches && (
        <Card title="Built patches: the truth" name={`${name}-built`}>
          {truth.value ? (
            <Heat
              values={grid(side, side, (x, y) => truth.value?.data[y * side + x] ?? Number.NaN)}
              label="built"
              range={[0, 1]}
              axes={["patch to the east", "patch to the south"]}
            />
          ) : (
            <Waiting of={truth} what="the occupancy" parts={["occupancy"]} />
          )}
        </Card>
      )}
    </>
  );
}

/** Waves that the run's model recovered of a user and followed through the scene. */
export function FollowedCard({ user, base }: { user: User; base: Point }) {
  const { index } = usePage();
  const waves = user.followed ?? [];
  return (
    <Card
      title={`Waves that ${index.run?.name} followed (${waves.length})`}
      wide
      note="By reflections alone. A wave that comes down near the user is one that says where the user is."
    >
      {waves.length > 0 && (
        <section class="table followed" aria-label="Followed waves">
          <table>
            <thead>
              <tr>
                {[
                  "Wave",
                  "Gain, dB",
                  "Walls",
                  "Length, m",
                  "Departure zenith, °",
                  "azimuth, °",
                  "From the user, m",
                ].map((label) => (
                  <th key={label} class="number">
                    {label}
                  </th>
                ))}
                <th>Comes down</th>
              </tr>
            </thead>
            <tbody>
              {waves.map(({ gain, lands, points }, number) => {
                const away = points[1].map((value, axis) => value - base[axis]) as Point;
                const length = points.slice(1).reduce((sum, point, i) => sum + distance(point, points[i]), 0);
                return (
                  <tr key={`${number}`}>
                    <td class="number">{number}</td>
                    <td class="number">{shown(gain, 1)}</td>
                    <td class="number">{points.length - 2}</td>
                    <td class="number">{shown(length, 1)}</td>
                    <td class="number">{shown(degrees(Math.acos(away[2] / Math.hypot(...away))), 1)}</td>
                    <td class="number">{shown(degrees(Math.atan2(away[1], away[0])), 1)}</td>
                    <td class="number">{lands ? shown(distance(points[points.length - 1], user.place), 1) : "–"}</td>
                    <td>{lands ? "where a user can be" : "on a roof, or not at all"}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </section>
      )}
    </Card>
  );
}
