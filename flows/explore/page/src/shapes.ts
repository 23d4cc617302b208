// Lines and tubes of a scene in 3D.

import {
  BufferGeometry,
  CanvasTexture,
  CylinderGeometry,
  type Group,
  type Material,
  Mesh,
  MeshBasicMaterial,
  type Object3D,
  Sprite,
  SpriteMaterial,
  SRGBColorSpace,
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

/** A text that faces whoever looks, `size` m high. */
export function sign(text: string, colour: string, place: Point, size: number): Sprite {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [96, 96];
  const context = canvas.getContext("2d");
  if (context) {
    context.beginPath();
    context.arc(48, 48, 44, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
    context.font = "bold 60px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#000000";
    context.lineWidth = 5;
    context.strokeText(text, 48, 52);
    context.fillText(text, 48, 52);
  }
  const texture = new CanvasTexture(canvas);
  texture.colorSpace = SRGBColorSpace;
  const sprite = new Sprite(new SpriteMaterial({ map: texture, depthTest: false }));
  sprite.scale.set(size, size, 1);
  sprite.position.set(...place);
  sprite.renderOrder = 2;
  return sprite;
}

export function empty(group: Group): void {
  for (const child of [...group.children]) {
    group.remove(child);
    const { geometry, material } = child as Object3D & { geometry?: BufferGeometry; material?: Material };
    geometry?.dispose();
    if (material instanceof MeshBasicMaterial || material instanceof SpriteMaterial) material.map?.dispose();
    material?.dispose();
  }
}
