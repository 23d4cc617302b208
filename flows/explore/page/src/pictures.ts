// Pictures to keep: SVG with the styles in it, or PNG, both with the attribution of the map.

const COPIED = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-opacity",
  "stroke-dasharray",
  "opacity",
  "color",
  "font-family",
  "font-size",
  "font-weight",
  "text-anchor",
  "visibility",
  "paint-order",
];
const MARGIN = 24;

/** A copy of a drawing that looks the same outside the page, with a line of attribution below. */
export function standalone(svg: SVGSVGElement, attribution: string): { text: string; width: number; height: number } {
  const { width, height } = svg.getBoundingClientRect();
  const copy = svg.cloneNode(true) as SVGSVGElement;
  const [before, after] = [svg, copy].map((root) => [root, ...root.querySelectorAll<SVGElement>("*")]);
  before.forEach((element, i) => {
    const computed = getComputedStyle(element);
    const style = COPIED.map((name) => `${name}:${computed.getPropertyValue(name)}`).join(";");
    after[i].setAttribute("style", style);
    after[i].removeAttribute("class");
  });
  for (const element of copy.querySelectorAll("style, foreignObject")) element.remove();
  const box = svg.viewBox.baseVal;
  const scale = box?.width ? box.width / width : 1;
  const [left, top] = box?.width ? [box.x, box.y] : [0, 0];
  const [w, h, margin] = [width * scale, height * scale, MARGIN * scale];
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("viewBox", `${left} ${top} ${w} ${h + margin}`);
  copy.setAttribute("width", String(width));
  copy.setAttribute("height", String(height + MARGIN));
  const ground = drawn("rect", { x: left, y: top, width: w, height: h + margin, fill: colourOf("--paper") });
  const line = drawn("text", {
    x: left + 8 * scale,
    y: top + h + 16 * scale,
    "font-size": 11 * scale,
    fill: colourOf("--soft"),
    "font-family": "sans-serif",
  });
  line.textContent = attribution;
  copy.prepend(ground);
  copy.append(line);
  return { text: new XMLSerializer().serializeToString(copy), width, height: height + MARGIN };
}

export function saveSvg(svg: SVGSVGElement, name: string, attribution: string): void {
  save(new Blob([standalone(svg, attribution).text], { type: "image/svg+xml" }), `${name}.svg`);
}

export async function savePng(svg: SVGSVGElement, name: string, attribution: string): Promise<void> {
  const { text, width, height } = standalone(svg, attribution);
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await picture.decode();
  saveCanvas(picture, width, height, 2, name);
}

/** A drawing of WebGL, with the attribution written into it. */
export function saveCanvasPng(canvas: HTMLCanvasElement, name: string, attribution: string, note: string): void {
  const scale = canvas.width / canvas.clientWidth;
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height + 2 * MARGIN * scale;
  const pen = copy.getContext("2d") as CanvasRenderingContext2D;
  pen.fillStyle = colourOf("--paper");
  pen.fillRect(0, 0, copy.width, copy.height);
  pen.drawImage(canvas, 0, 0);
  pen.fillStyle = colourOf("--soft");
  pen.font = `${12 * scale}px sans-serif`;
  pen.fillText(note, 8 * scale, canvas.height + 18 * scale, copy.width - 16 * scale);
  pen.fillText(attribution, 8 * scale, canvas.height + 38 * scale, copy.width - 16 * scale);
  copy.toBlob((blob) => blob && save(blob, `${name}.png`));
}

function saveCanvas(picture: CanvasImageSource, width: number, height: number, scale: number, name: string): void {
  const canvas = document.createElement("canvas");
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => blob && save(blob, `${name}.png`));
}

export function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function colourOf(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawn(kind: string, attributes: Record<string, string | number>): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}
