// A scene in 3D with three.js: metres, x east, y north, z up.

import {
  AmbientLight,
  BufferAttribute,
  BufferGeometry,
  CanvasTexture,
  Color,
  ConeGeometry,
  CylinderGeometry,
  DirectionalLight,
  DoubleSide,
  Group,
  InstancedMesh,
  Line,
  LineBasicMaterial,
  LineSegments,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  MeshLambertMaterial,
  NearestFilter,
  OctahedronGeometry,
  PerspectiveCamera,
  Plane,
  PlaneGeometry,
  Quaternion,
  Raycaster,
  Scene,
  SphereGeometry,
  SRGBColorSpace,
  TetrahedronGeometry,
  Vector2,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import type { Tree } from "./crowns";
import type { Followed } from "./index";
import type { Point } from "./rays";
import { empty, geometryOf, sign, thick, tube } from "./shapes";
import type { Surface } from "./solids";

export interface Solid {
  walls: Float64Array;
  roofs: Float64Array;
  edges: Float64Array;
  wallColour: string;
  roofColour: string;
}

export interface Marker {
  place: Point;
  colour: string;
  /** Index into STATUSES, which have shapes of their own. */
  status: number;
}

export interface Ray {
  lines: Point[][];
  whole: boolean;
  colour: string;
  chosen: boolean;
  /** Colour of what is drawn below it, for paths through crowns. */
  under: string | null;
}

/** A base station as it is drawn. */
export interface Mast {
  place: Point;
  boresight: Point;
  colour: string;
  /** Empty where there is one alone. */
  label: string;
  chosen: boolean;
}

/** Where the pointer is: at a user, else on the ground, at a place in m. */
export interface Pointed {
  user: number | null;
  ground: [number, number] | null;
  x: number;
  y: number;
}

const SHAPES = [
  () => new SphereGeometry(1, 12, 8),
  () => new OctahedronGeometry(1.35),
  () => new TetrahedronGeometry(1.4),
];

/** How much wider than high a scene looks from aside. */
const WIDE = 1.4;

/** Everything that is drawn; it draws anew only when something has changed. */
export class Stage {
  private readonly renderer: WebGLRenderer;
  private readonly scene = new Scene();
  private readonly camera: PerspectiveCamera;
  private readonly controls: OrbitControls;
  private readonly layers = {
    ground: new Group(),
    map: new Group(),
    solids: new Group(),
    crowns: new Group(),
    users: new Group(),
    base: new Group(),
    rays: new Group(),
    followed: new Group(),
    errors: new Group(),
    here: new Group(),
  };
  private markers: Marker[] = [];
  private meshes: { mesh: InstancedMesh; users: number[] }[] = [];
  private asked = 0;
  /** How it was looked at when that was last said. */
  private said = "";
  private readonly watch: ResizeObserver;

  constructor(
    readonly canvas: HTMLCanvasElement,
    readonly size: number,
    readonly onUser: (user: number) => void,
    readonly onHover: (at: Pointed | null) => void,
    /** How it is looked at now, as `look` takes it. */
    readonly onLook: (camera: string) => void,
  ) {
    this.renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.camera = new PerspectiveCamera(40, 1, 1, 40 * size);
    this.camera.up.set(0, 0, 1);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.maxPolarAngle = Math.PI / 2 - 0.02;
    this.controls.minDistance = size / 20;
    this.controls.maxDistance = 6 * size;
    this.controls.zoomToCursor = true;
    this.controls.addEventListener("change", () => this.draw());
    this.controls.addEventListener("end", () => this.looked());
    this.look(null);
    const sun = new DirectionalLight(0xffffff, 2.2);
    sun.position.set(-0.45, -0.6, 1);
    this.scene.add(sun, new AmbientLight(0xffffff, 1.5), ...Object.values(this.layers));
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(canvas.parentElement as HTMLElement);
    let pressed = { x: 0, y: 0 };
    canvas.addEventListener("pointerdown", (event) => {
      pressed = { x: event.clientX, y: event.clientY };
    });
    canvas.addEventListener("pointerup", (event) => {
      const user = this.userAt(event);
      // A click, not the end of a turn.
      if (Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < 5 && user !== null) this.onUser(user);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) {
        this.onHover(null);
        return;
      }
      const user = this.userAt(event);
      canvas.style.cursor = user === null ? "grab" : "pointer";
      const ground = user === null ? this.groundAt(event) : null;
      this.onHover(user === null && !ground ? null : { user, ground, x: event.offsetX, y: event.offsetY });
    });
    canvas.addEventListener("pointerleave", () => this.onHover(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.fit();
  }

  /** Look as `looks` says; null: from the south, above the horizon. */
  look(camera: string | null): void {
    const numbers = (camera ?? "").split(",").map(Number);
    const known = numbers.length === 5 && numbers.every(Number.isFinite);
    const [azimuth, elevation, far, x, y] = known
      ? numbers
      : [249, 38, 1.5 * this.size, -0.03 * this.size, -0.07 * this.size];
    const [a, e] = [(azimuth * Math.PI) / 180, (Math.min(89.9, Math.max(2, elevation)) * Math.PI) / 180];
    this.controls.target.set(x, y, 0);
    this.camera.position.set(
      x + far * Math.cos(a) * Math.cos(e),
      y + far * Math.sin(a) * Math.cos(e),
      far * Math.sin(e),
    );
    this.controls.update();
    this.said = this.looks();
    this.draw();
  }

  /** From where the camera looks: azimuth and elevation in degrees, distance in m, to a place on the ground in m. */
  looks(): string {
    const { target } = this.controls;
    const offset = this.camera.position.clone().sub(target);
    const far = offset.length();
    const azimuth = ((Math.atan2(offset.y, offset.x) * 180) / Math.PI + 360) % 360;
    const elevation = (Math.asin(offset.z / far) * 180) / Math.PI;
    return [azimuth, elevation, far, target.x, target.y].map((value) => Number(value.toFixed(1))).join(",");
  }

  /** From above, as `look` takes it. */
  top(): string {
    return `270,89.9,${1.62 * this.size},0,0`;
  }

  /** A picture of the ground, its first row in the north; null for none. */
  setMap(picture: ImageData | null): void {
    const { map: layer } = this.layers;
    empty(layer);
    if (picture) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [picture.width, picture.height];
      canvas.getContext("2d")?.putImageData(picture, 0, 0);
      const texture = new CanvasTexture(canvas);
      texture.colorSpace = SRGBColorSpace;
      texture.magFilter = NearestFilter;
      const plane = new Mesh(
        new PlaneGeometry(this.size, this.size),
        new MeshBasicMaterial({ map: texture, transparent: true }),
      );
      plane.position.z = -0.05;
      plane.renderOrder = -1; // below what else is transparent
      layer.add(plane);
    }
    this.draw();
  }

  setGround(colour: string, line: string): void {
    const { ground } = this.layers;
    empty(ground);
    const plane = new Mesh(new PlaneGeometry(this.size, this.size), new MeshBasicMaterial({ color: colour }));
    plane.position.z = -0.15;
    const half = this.size / 2;
    const frame: Point[] = [
      [-half, -half, 0],
      [half, -half, 0],
      [half, half, 0],
      [-half, half, 0],
      [-half, -half, 0],
    ];
    const x = 0.8 * half;
    const shaft: Point[] = [
      [x, half + 6, 0],
      [x, half + 22, 0],
      [x - 4, half + 16, 0],
      [x, half + 22, 0],
      [x + 4, half + 16, 0],
    ];
    const letter: Point[] = [
      [x - 4, half + 26, 0],
      [x - 4, half + 36, 0],
      [x + 4, half + 26, 0],
      [x + 4, half + 36, 0],
    ];
    for (const points of [frame, shaft, letter])
      ground.add(new Line(geometryOf(points), new LineBasicMaterial({ color: line })));
    ground.add(plane);
    this.draw();
  }

  setSolids(solids: Solid[], edge: string): void {
    const { solids: layer } = this.layers;
    empty(layer);
    const parts = [
      ...solids.map((solid) => ({ corners: solid.walls, colour: solid.wallColour })),
      ...solids.map((solid) => ({ corners: solid.roofs, colour: solid.roofColour })),
    ];
    const total = parts.reduce((sum, { corners }) => sum + corners.length, 0);
    const [positions, colours] = [new Float32Array(total), new Float32Array(total)];
    let place = 0;
    const colour = new Color();
    for (const part of parts) {
      positions.set(part.corners, place);
      colour.set(part.colour);
      for (let i = place; i < place + part.corners.length; i += 3) colour.toArray(colours, i);
      place += part.corners.length;
    }
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new BufferAttribute(positions, 3));
    geometry.setAttribute("color", new BufferAttribute(colours, 3));
    geometry.computeVertexNormals(); // of single triangles, as no corners are shared
    const material = new MeshLambertMaterial({
      vertexColors: true,
      side: DoubleSide,
      polygonOffset: true,
      polygonOffsetFactor: 1,
      polygonOffsetUnits: 1,
    });
    layer.add(new Mesh(geometry, material));
    const lines = new BufferGeometry();
    const ends = new Float32Array(solids.reduce((sum, { edges }) => sum + edges.length, 0));
    let start = 0;
    for (const { edges } of solids) {
      ends.set(edges, start);
      start += edges.length;
    }
    lines.setAttribute("position", new BufferAttribute(ends, 3));
    layer.add(new LineSegments(lines, new LineBasicMaterial({ color: edge, transparent: true, opacity: 0.55 })));
    this.draw();
  }

  setUsers(markers: Marker[], chosen: number | null, accent: string, hidden: boolean): void {
    const { users: layer } = this.layers;
    empty(layer);
    // Of hidden ones the chosen one is seen, none is pointed at.
    this.markers = hidden ? [] : markers;
    this.meshes = [];
    const size = Math.min(1.7, 0.0085 * this.size);
    SHAPES.forEach((shape, status) => {
      const users = markers.flatMap((marker, number) =>
        marker.status === status && (!hidden || number === chosen) ? [number] : [],
      );
      if (!users.length) return;
      const mesh = new InstancedMesh(shape(), new MeshLambertMaterial({ emissive: 0x333333 }), users.length);
      users.forEach((number, i) => {
        const { place, colour } = markers[number];
        mesh.setMatrixAt(i, new Matrix4().makeScale(size, size, size).setPosition(...place));
        mesh.setColorAt(i, new Color(colour));
      });
      layer.add(mesh);
      this.meshes.push({ mesh, users });
    });
    const marker = chosen === null ? undefined : markers[chosen];
    if (marker) {
      const [x, y, z] = marker.place;
      const pin = new Mesh(new ConeGeometry(1.6 * size, 6.5 * size, 16), new MeshBasicMaterial({ color: accent }));
      pin.rotation.x = -Math.PI / 2;
      pin.position.set(x, y, z + 5.5 * size);
      layer.add(pin);
    }
    this.draw();
  }

  setStations(masts: Mast[]): void {
    const { base: layer } = this.layers;
    empty(layer);
    for (const { place, boresight, colour, label, chosen } of masts) {
      const material = new MeshBasicMaterial({ color: colour });
      const mast = new Mesh(new CylinderGeometry(0.5, 0.5, place[2]), material);
      mast.rotation.x = Math.PI / 2;
      mast.position.set(place[0], place[1], place[2] / 2);
      const arrow = new Mesh(new ConeGeometry(2.4, 8, 20), material);
      const towards = new Vector3(...boresight);
      arrow.quaternion.copy(new Quaternion().setFromUnitVectors(new Vector3(0, 1, 0), towards));
      arrow.position.set(...place).addScaledVector(towards, 4);
      layer.add(mast, arrow);
      const size = (chosen ? 0.06 : 0.045) * this.size;
      if (label) layer.add(sign(label, colour, [place[0], place[1], place[2] + 4 + size / 2], size));
    }
    this.draw();
  }

  /** Crowns of trees as cylinders, of woods as their prisms; what is behind them shines through. */
  setCrowns(trees: Tree[], woods: Surface[], colour: string): void {
    const { crowns: layer } = this.layers;
    empty(layer);
    const look = () =>
      new MeshLambertMaterial({ color: colour, transparent: true, opacity: 0.36, side: DoubleSide, depthWrite: false });
    if (trees.length) {
      const mesh = new InstancedMesh(new CylinderGeometry(1, 1, 1, 20), look(), trees.length);
      const upright = new Quaternion().setFromAxisAngle(new Vector3(1, 0, 0), Math.PI / 2);
      trees.forEach(({ x, y, radius, base, top }, i) => {
        const place = new Vector3(x, y, (base + top) / 2);
        mesh.setMatrixAt(i, new Matrix4().compose(place, upright, new Vector3(radius, top - base, radius)));
      });
      layer.add(mesh);
    }
    for (const { walls, roofs } of woods) {
      const geometry = new BufferGeometry();
      geometry.setAttribute("position", new BufferAttribute(Float32Array.from([...walls, ...roofs]), 3));
      geometry.computeVertexNormals();
      layer.add(new Mesh(geometry, look()));
    }
    this.draw();
  }

  /** Paths of the chosen user, and where a moving one goes. */
  setRays(rays: Ray[], way: Point[], wayColour: string): void {
    const { rays: layer } = this.layers;
    empty(layer);
    const dot = new SphereGeometry(0.75, 10, 6);
    for (const { lines, whole, colour, chosen, under } of rays) {
      for (const points of lines) {
        if (under) layer.add(thick(points, under, 5.5, false, 0.55));
        layer.add(thick(points, colour, 1.7, !whole, chosen ? 1 : 0.8));
        // Seen from everywhere.
        if (chosen) for (let i = 1; i < points.length; i++) layer.add(tube(points[i - 1], points[i], 0.45, colour));
        const bounces = whole ? points.slice(1, -1) : points.slice(1);
        for (const place of bounces) {
          const ball = new Mesh(dot, new MeshBasicMaterial({ color: colour }));
          ball.position.set(...place);
          layer.add(ball);
        }
      }
    }
    if (way.length > 1) {
      for (let i = 1; i < way.length; i++) layer.add(tube(way[i - 1], way[i], 0.3, wayColour));
    }
    this.draw();
  }

  /** Waves that a model followed: where each turns, and a mark where it comes down. */
  setFollowed(waves: Followed[], colour: string): void {
    const { followed: layer } = this.layers;
    empty(layer);
    const [corner, end] = [new SphereGeometry(0.8, 10, 6), new OctahedronGeometry(1.9)];
    for (const { points, lands } of waves) {
      layer.add(thick(points, colour, 3, !lands, 1));
      points.slice(1, lands ? undefined : -1).forEach((place, i) => {
        const last = lands && i === points.length - 2;
        const mark = new Mesh(last ? end : corner, new MeshBasicMaterial({ color: colour }));
        mark.position.set(...place);
        layer.add(mark);
      });
    }
    this.draw();
  }

  /** From where users are to where a model locates them. */
  setErrors(pairs: { from: Point; to: Point; chosen: boolean }[], colour: string): void {
    const { errors: layer } = this.layers;
    empty(layer);
    const ball = new SphereGeometry(0.8, 10, 6);
    for (const { from, to, chosen } of pairs) {
      const look = new MeshBasicMaterial({ color: colour });
      layer.add(new Line(geometryOf([from, to]), new LineBasicMaterial({ color: colour })));
      if (chosen) layer.add(tube(from, to, 0.4, colour));
      const end = new Mesh(ball, look);
      end.position.set(...to);
      layer.add(end);
    }
    this.draw();
  }

  /** Where a user that moves is now. */
  setHere(place: Point | null, colour: string): void {
    const { here: layer } = this.layers;
    empty(layer);
    if (place) {
      const ball = new Mesh(new SphereGeometry(1.6, 16, 10), new MeshBasicMaterial({ color: colour }));
      ball.position.set(...place);
      layer.add(ball);
    }
    this.draw();
  }

  /** The picture now; drawn first, as a browser forgets what it has shown. */
  picture(): HTMLCanvasElement {
    this.renderer.render(this.scene, this.camera);
    return this.canvas;
  }

  dispose(): void {
    cancelAnimationFrame(this.asked);
    this.asked = -1;
    this.watch.disconnect();
    this.controls.dispose();
    for (const layer of Object.values(this.layers)) empty(layer);
    this.renderer.dispose();
  }

  private draw(): void {
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      this.renderer.render(this.scene, this.camera);
      this.canvas.dataset.drawn = String(Number(this.canvas.dataset.drawn ?? 0) + 1);
    });
  }

  private fit(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement as HTMLElement;
    if (!width || !height) return;
    this.renderer.setPixelRatio(Math.min(2, window.devicePixelRatio));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    // A narrow screen sees the whole scene from side to side.
    const half = Math.tan(Math.PI / 9) * Math.max(1, (WIDE * height) / width);
    this.camera.fov = (2 * Math.atan(half) * 180) / Math.PI;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  private userAt(event: PointerEvent): number | null {
    const { width, height } = this.canvas.getBoundingClientRect();
    // The nearest on the screen, so that fingers and mice need not hit a small sphere.
    let [best, nearest] = [event.pointerType === "touch" ? 22 : 10, null as number | null];
    const point = new Vector3();
    this.markers.forEach(({ place }, number) => {
      point.set(...place).project(this.camera);
      const [x, y] = [((point.x + 1) / 2) * width, ((1 - point.y) / 2) * height];
      const far = Math.hypot(x - event.offsetX, y - event.offsetY);
      if (point.z < 1 && far < best) [best, nearest] = [far, number];
    });
    if (nearest === null) return null;
    return this.hidden(nearest, event, width, height) ? null : nearest;
  }

  /** Whether a building stands before a user. */
  private hidden(user: number, event: PointerEvent, width: number, height: number): boolean {
    const far = this.camera.position.distanceTo(new Vector3(...this.markers[user].place));
    return this.before(this.towards(event, width, height), far - 6);
  }

  /** Place on the ground under the pointer, m; null outside the scene and behind buildings. */
  private groundAt(event: PointerEvent): [number, number] | null {
    if (!this.layers.map.children.length) return null;
    const { width, height } = this.canvas.getBoundingClientRect();
    const caster = this.towards(event, width, height);
    const place = caster.ray.intersectPlane(new Plane(new Vector3(0, 0, 1)), new Vector3());
    if (!place || Math.max(Math.abs(place.x), Math.abs(place.y)) > this.size / 2) return null;
    return this.before(caster, this.camera.position.distanceTo(place)) ? null : [place.x, place.y];
  }

  private towards(event: PointerEvent, width: number, height: number): Raycaster {
    const caster = new Raycaster();
    caster.setFromCamera(new Vector2((2 * event.offsetX) / width - 1, 1 - (2 * event.offsetY) / height), this.camera);
    return caster;
  }

  /** Whether a building is met before a distance. */
  private before(caster: Raycaster, far: number): boolean {
    const solids = this.layers.solids.children.filter((child) => child instanceof Mesh);
    return caster.intersectObjects(solids).some((hit) => hit.distance < far);
  }

  private key(event: KeyboardEvent): void {
    const { camera, controls } = this;
    const offset = camera.position.clone().sub(controls.target);
    const turns: Record<string, () => void> = {
      ArrowLeft: () => offset.applyAxisAngle(new Vector3(0, 0, 1), -0.12),
      ArrowRight: () => offset.applyAxisAngle(new Vector3(0, 0, 1), 0.12),
      ArrowUp: () => tilt(offset, -0.08),
      ArrowDown: () => tilt(offset, 0.08),
      "+": () => offset.multiplyScalar(1 / 1.15),
      "-": () => offset.multiplyScalar(1.15),
    };
    const turn = turns[event.key];
    if (!turn) return;
    event.preventDefault();
    turn();
    camera.position.copy(controls.target).add(offset);
    controls.update();
    this.draw();
    this.looked();
  }

  /** Say how it is looked at, if that has changed. */
  private looked(): void {
    const now = this.looks();
    if (now !== this.said) this.onLook(now);
    this.said = now;
  }
}

function tilt(offset: Vector3, angle: number): void {
  const side = new Vector3(-offset.y, offset.x, 0).normalize();
  offset.applyAxisAngle(side, angle);
}
