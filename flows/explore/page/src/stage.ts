// A scene in 3D with three.js: metres, x east, y north, z up.

import {
  AmbientLight,
  BufferAttribute,
  BufferGeometry,
  Color,
  ConeGeometry,
  CylinderGeometry,
  DirectionalLight,
  DoubleSide,
  Group,
  InstancedMesh,
  Line,
  LineBasicMaterial,
  LineDashedMaterial,
  LineSegments,
  type Material,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  MeshLambertMaterial,
  type Object3D,
  OctahedronGeometry,
  PerspectiveCamera,
  PlaneGeometry,
  Quaternion,
  Raycaster,
  Scene,
  SphereGeometry,
  TetrahedronGeometry,
  Vector2,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { BASE_STATION } from "./colours";
import type { Point } from "./rays";

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
}

const SHAPES = [
  () => new SphereGeometry(1, 12, 8),
  () => new OctahedronGeometry(1.35),
  () => new TetrahedronGeometry(1.4),
];

/** Everything that is drawn; it draws anew only when something has changed. */
export class Stage {
  private readonly renderer: WebGLRenderer;
  private readonly scene = new Scene();
  private readonly camera: PerspectiveCamera;
  private readonly controls: OrbitControls;
  private readonly layers = {
    ground: new Group(),
    solids: new Group(),
    users: new Group(),
    base: new Group(),
    rays: new Group(),
    errors: new Group(),
    here: new Group(),
  };
  private markers: Marker[] = [];
  private meshes: { mesh: InstancedMesh; users: number[] }[] = [];
  private asked = 0;
  private readonly watch: ResizeObserver;

  constructor(
    readonly canvas: HTMLCanvasElement,
    readonly size: number,
    readonly onUser: (user: number) => void,
    readonly onHover: (user: number | null, x: number, y: number) => void,
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
    this.home();
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
      const user = event.buttons ? null : this.userAt(event);
      canvas.style.cursor = user === null ? "grab" : "pointer";
      this.onHover(user, event.offsetX, event.offsetY);
    });
    canvas.addEventListener("pointerleave", () => this.onHover(null, 0, 0));
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.fit();
  }

  /** From the south, above the horizon. */
  home(): void {
    const { size } = this;
    this.controls.target.set(0, -0.06 * size, 0);
    this.camera.position.set(-0.44 * size, -1.16 * size, 1.0 * size);
    this.controls.update();
    this.draw();
  }

  top(): void {
    this.controls.target.set(0, 0, 0);
    this.camera.position.set(0, -0.001 * this.size, 1.62 * this.size);
    this.controls.update();
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

  setUsers(markers: Marker[], chosen: number | null, accent: string): void {
    const { users: layer } = this.layers;
    empty(layer);
    this.markers = markers;
    this.meshes = [];
    const size = Math.min(1.7, 0.0085 * this.size);
    SHAPES.forEach((shape, status) => {
      const users = markers.flatMap((marker, number) => (marker.status === status ? [number] : []));
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

  setBase(base: Point, boresight: Point): void {
    const { base: layer } = this.layers;
    empty(layer);
    const material = new MeshBasicMaterial({ color: BASE_STATION });
    const mast = new Mesh(new CylinderGeometry(0.5, 0.5, base[2]), material);
    mast.rotation.x = Math.PI / 2;
    mast.position.set(base[0], base[1], base[2] / 2);
    const arrow = new Mesh(new ConeGeometry(2.4, 8, 20), material);
    const towards = new Vector3(...boresight);
    arrow.quaternion.copy(new Quaternion().setFromUnitVectors(new Vector3(0, 1, 0), towards));
    arrow.position.set(...base).addScaledVector(towards, 4);
    layer.add(mast, arrow);
    this.draw();
  }

  /** Paths of the chosen user, and where a moving one goes. */
  setRays(rays: Ray[], way: Point[], wayColour: string): void {
    const { rays: layer } = this.layers;
    empty(layer);
    const dot = new SphereGeometry(0.75, 10, 6);
    for (const { lines, whole, colour, chosen } of rays) {
      for (const points of lines) {
        const look = { color: colour, transparent: true, opacity: chosen ? 1 : 0.75, linewidth: 1 };
        const line = new Line(
          geometryOf(points),
          whole ? new LineBasicMaterial(look) : new LineDashedMaterial({ ...look, dashSize: 2, gapSize: 1.5 }),
        );
        line.computeLineDistances();
        layer.add(line);
        // Lines of WebGL are a pixel wide: the chosen path is a tube.
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
    // A narrow screen sees as much to the sides.
    this.camera.fov = width < height ? (2 * Math.atan((Math.tan(Math.PI / 9) * height) / width) * 180) / Math.PI : 40;
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
    const caster = new Raycaster();
    caster.setFromCamera(new Vector2((2 * event.offsetX) / width - 1, 1 - (2 * event.offsetY) / height), this.camera);
    const far = this.camera.position.distanceTo(new Vector3(...this.markers[user].place));
    const solids = this.layers.solids.children.filter((child) => child instanceof Mesh);
    return caster.intersectObjects(solids).some((hit) => hit.distance < far - 6);
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
  }
}

function tilt(offset: Vector3, angle: number): void {
  const side = new Vector3(-offset.y, offset.x, 0).normalize();
  offset.applyAxisAngle(side, angle);
}

function geometryOf(points: Point[]): BufferGeometry {
  return new BufferGeometry().setFromPoints(points.map((point) => new Vector3(...point)));
}

function tube(from: Point, to: Point, radius: number, colour: string): Mesh {
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

function empty(group: Group): void {
  for (const child of [...group.children]) {
    group.remove(child);
    const { geometry, material } = child as Object3D & { geometry?: BufferGeometry; material?: Material };
    geometry?.dispose();
    material?.dispose();
  }
}
