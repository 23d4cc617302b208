// Buildings as triangles. Metres, x east, y north, z up.

import { ShapeUtils, Vector2 } from "three";
import type { Building } from "./store";

export interface Surface {
  /** Corners (T, 3, 3) of walls, and of roofs and floors. */
  walls: Float64Array;
  roofs: Float64Array;
  /** Ends (E, 2, 3) of edges. */
  edges: Float64Array;
}

/** Surface of one building: prisms from its base to its height. */
export function surfaceOf({ polygons, base, height }: Pick<Building, "polygons" | "base" | "height">): Surface {
  const [walls, roofs, edges]: [number[], number[], number[]] = [[], [], []];
  for (const polygon of polygons) {
    const rings = polygon.map((ring, index) => oriented(closedOff(ring), index === 0));
    for (const ring of rings) {
      ring.forEach(([x, y], i) => {
        const [u, v] = ring[(i + 1) % ring.length];
        walls.push(x, y, base, u, v, base, u, v, height, x, y, base, u, v, height, x, y, height);
        edges.push(x, y, height, u, v, height, x, y, base, x, y, height);
        if (base > 0) edges.push(x, y, base, u, v, base);
      });
    }
    const [outer, ...holes] = rings.map((ring) => ring.map(([x, y]) => new Vector2(x, y)));
    const corners = [outer, ...holes].flat();
    for (const [a, b, c] of ShapeUtils.triangulateShape(outer, holes)) {
      const turned = cross2(corners[a], corners[b], corners[c]) < 0;
      const order = turned ? [a, c, b] : [a, b, c];
      for (const i of order) roofs.push(corners[i].x, corners[i].y, height);
      if (base > 0) for (const i of [...order].reverse()) roofs.push(corners[i].x, corners[i].y, base);
    }
  }
  return { walls: Float64Array.from(walls), roofs: Float64Array.from(roofs), edges: Float64Array.from(edges) };
}

const cross2 = (a: Vector2, b: Vector2, c: Vector2) => (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);

function closedOff(ring: [number, number][]): [number, number][] {
  const [first, last] = [ring[0], ring[ring.length - 1]];
  return first[0] === last[0] && first[1] === last[1] ? ring.slice(0, -1) : ring;
}

/** Counter-clockwise for the outer ring, clockwise for holes: walls then face outwards. */
function oriented(ring: [number, number][], counterClockwise: boolean): [number, number][] {
  let area = 0;
  ring.forEach(([x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length];
    area += x * v - u * y;
  });
  return area > 0 === counterClockwise ? ring : [...ring].reverse();
}
