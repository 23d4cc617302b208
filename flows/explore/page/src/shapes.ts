// Lines and tubes of a scene in 3D.

import {
  BufferGeometry,
  CylinderGeometry,
  type Group,
  type Material,
  Mesh,
  MeshBasicMaterial,
  type Object3D,
  Vector3,
} from "three";
import { Line2 } from "three/examples/jsm/lines/Line2.js";
import { LineGeometry } from "three/examples/jsm/lines/LineGeometry.js";
import { LineMaterial } from "three/examples/jsm/lines/LineMaterial.js";
import type { Point } from "./rays";

export function geometryOf(points: Point[]): BufferGeometry {
  return new BufferGeometry().setFromPoints(points.map((point) => new Vector3(...point)));
}

/** A line of so many pixels; those of WebGL itself have one. */
export function thick(points: Point[], colour: string, width: number, dashed: boolean, opacity: number): Line2 {
  const geometry = new LineGeometry();
  geometry.setPositions(points.flat());
  const look = { color: colour, linewidth: width, dashed, dashSize: 2, gapSize: 1.5, transparent: true, opacity };
  const line = new Line2(geometry, new LineMaterial(look));
  line.computeLineDistances();
  return line;
}

export function tube(from: Point, to: Point, radius: number, colour: string): Mesh {
  const [a, b] = [new Vector3(...from), new Vector3(...to)];
  const along = b.clone().sub(a);
  const mesh = new Mesh(
    new CylinderGeometry(radius, radius, along.length(), 8),
    new MeshBasicMaterial({ color: colour }),
  );
  mesh.position.copy(a).addScaledVector(along, 0.5);
  mesh.quaternion.setFromUnitVectors(new Vector3(0, 1, 0), along.normalize());
  return mesh;
}

export function empty(group: Group): void {
  for (const child of [...group.children]) {
    group.remove(child);
    const { geometry, material } = child as Object3D & { geometry?: BufferGeometry; material?: Material };
    geometry?.dispose();
    if (material instanceof MeshBasicMaterial) material.map?.dispose();
    material?.dispose();
  }
}
