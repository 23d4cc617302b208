// Points and rays in the frame of a scene: metres, x east, y north, z up.

export type Point = [number, number, number];

/** Distance to the first triangle or the ground along a ray (Infinity: none), and the unit normal there. */
export function firstHit(origin: Point, ray: Point, triangles: Float64Array): { distance: number; normal: Point } {
  let nearest = Infinity;
  let found = -1;
  for (let t = 0; t < triangles.length; t += 9) {
    // Möller and Trumbore; 1 mm ahead, so that a ray does not hit the wall that it leaves.
    const [ax, ay, az] = [triangles[t], triangles[t + 1], triangles[t + 2]];
    const first: Point = [triangles[t + 3] - ax, triangles[t + 4] - ay, triangles[t + 5] - az];
    const second: Point = [triangles[t + 6] - ax, triangles[t + 7] - ay, triangles[t + 8] - az];
    const across = cross(ray, second);
    const determinant = dot(first, across);
    if (determinant === 0) continue;
    const offset: Point = [origin[0] - ax, origin[1] - ay, origin[2] - az];
    const u = dot(offset, across) / determinant;
    if (u < -1e-9 || u > 1 + 1e-9) continue;
    const turned = cross(offset, first);
    const v = dot(ray, turned) / determinant;
    if (v < -1e-9 || u + v > 1 + 1e-9) continue;
    const distance = dot(second, turned) / determinant;
    if (distance > 1e-3 && distance < nearest) {
      nearest = distance;
      found = t;
    }
  }
  const ground = ray[2] < 0 ? -origin[2] / ray[2] : Infinity;
  if (ground > 1e-3 && ground < nearest) return { distance: ground, normal: [0, 0, 1] };
  if (found < 0) return { distance: Infinity, normal: [0, 0, 1] };
  const corner = (i: number): Point => [triangles[found + i], triangles[found + i + 1], triangles[found + i + 2]];
  const normal = cross(minus(corner(3), corner(0)), minus(corner(6), corner(0)));
  return { distance: nearest, normal: times(normal, 1 / Math.hypot(...normal)) };
}

export const dot = (a: Point, b: Point) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const minus = (a: Point, b: Point): Point => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
export const plus = (a: Point, b: Point): Point => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
export const times = (a: Point, factor: number): Point => [a[0] * factor, a[1] * factor, a[2] * factor];
export const cross = (a: Point, b: Point): Point => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
export const distance = (a: Point, b: Point) => Math.hypot(...minus(a, b));
