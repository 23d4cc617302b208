// Azimuths of paths at both ends, as a compass.

import { STATUS_COLOURS } from "../colours";
import { shown } from "../numbers";
import { describe, type Path } from "../paths";

const SIZE = 300;
const RADIUS = 112;

export function Polar({ paths, chosen }: { paths: Path[]; chosen: number }) {
  const gains = paths.map(({ gain }) => gain);
  const high = Math.max(...gains);
  const low = Math.min(high - 10, Math.floor(Math.max(Math.min(...gains), high - 60) / 10) * 10);
  const far = (gain: number) => RADIUS * (0.12 + 0.88 * Math.max(0, (gain - low) / (high - low)));
  const rings = [0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low));
  const ends = [
    { of: (path: Path) => path.departure.azimuth, colour: STATUS_COLOURS[0], label: "departure" },
    { of: (path: Path) => path.arrival.azimuth, colour: STATUS_COLOURS[1], label: "arrival" },
  ];
  return (
    <svg
      class="drawing polar"
      viewBox={`${-SIZE / 2} ${-SIZE / 2} ${SIZE} ${SIZE}`}
      role="img"
      aria-label="Directions of the paths"
    >
      {rings.map((gain) => (
        <circle key={gain} r={far(gain)} class="ring" />
      ))}
      <path d={`M0,${-RADIUS}V${RADIUS}M${-RADIUS},0H${RADIUS}`} class="ring" />
      {["N", "E", "S", "W"].map((name, i) => {
        const angle = (i * Math.PI) / 2;
        return (
          <text
            key={name}
            x={(RADIUS + 16) * Math.sin(angle)}
            y={-(RADIUS + 16) * Math.cos(angle) + 4}
            text-anchor="middle"
          >
            {name}
          </text>
        );
      })}
      {ends.flatMap(({ of, colour, label }, end) =>
        paths.map((path, number) => {
          // Azimuths count from east towards north, and y points down here.
          const [x, y] = [far(path.gain) * Math.cos(of(path)), -far(path.gain) * Math.sin(of(path))];
          const size = number === chosen ? 8 : 4.5;
          const words = `path ${number}, ${label}: ${shown(path.gain, 1, "dB")}, ${describe(path.interactions)}`;
          return (
            <g key={`${label}${number}`} stroke={number === chosen ? "var(--mark)" : colour} fill={colour}>
              <title>{words}</title>
              <path
                d={`M0,0L${x},${y}`}
                stroke-width={number === chosen ? 3 : 1.2}
                fill="none"
                opacity={number === chosen ? 1 : 0.6}
              />
              {end ? (
                <path d={`M${x},${y - size}l${size},${1.7 * size}h${-2 * size}z`} />
              ) : (
                <circle cx={x} cy={y} r={size} />
              )}
            </g>
          );
        }),
      )}
      {rings.map((gain) => (
        <text key={gain} x={far(gain) * 0.71} y={-far(gain) * 0.71} class="small" text-anchor="middle">
          {shown(gain, 0, "dB")}
        </text>
      ))}
    </svg>
  );
}
