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

/** Copies of drawings below each other that look the same outside the page, with a line of attribution at the end. */
export function standalone(
  svgs: SVGSVGElement[],
  attribution: string,
): { text: string; width: number; height: number } {
  const sizes = svgs.map((svg) => svg.getBoundingClientRect());
  const width = Math.max(...sizes.map((size) => size.width), 6.2 * attribution.length);
  const height = sizes.reduce((sum, size) => sum + size.height, 0);
  const whole = drawn("svg", { width, height: height + MARGIN, viewBox: `0 0 ${width} ${height + MARGIN}` });
  whole.append(drawn("rect", { width, height: height + MARGIN, fill: colourOf("--paper") }));
  let top = 0;
  svgs.forEach((svg, i) => {
    const copy = styledCopy(svg);
    for (const [name, value] of Object.entries({ y: top, width: sizes[i].width, height: sizes[i].height })) {
      copy.setAttribute(name, String(value));
    }
    whole.append(copy);
    top += sizes[i].height;
  });
  const look = { "font-size": 11, fill: colourOf("--soft"), "font-family": "sans-serif" };
  const line = drawn("text", { x: 8, y: height + 16, ...look });
  line.textContent = attribution;
  whole.append(line);
  return { text: new XMLSerializer().serializeToString(whole), width, height: height + MARGIN };
}

/** A copy that does not need the page's style sheet. */
function styledCopy(svg: SVGSVGElement): SVGSVGElement {
  const copy = svg.cloneNode(true) as SVGSVGElement;
  const [before, after] = [svg, copy].map((root) => [root, ...root.querySelectorAll<SVGElement>("*")]);
  before.forEach((element, i) => {
    const computed = getComputedStyle(element);
    after[i].setAttribute("style", COPIED.map((name) => `${name}:${computed.getPropertyValue(name)}`).join(";"));
    after[i].removeAttribute("class");
  });
  for (const element of copy.querySelectorAll("style, foreignObject")) element.remove();
  return copy;
}

export function saveSvg(svgs: SVGSVGElement[], name: string, attribution: string): void {
  save(new Blob([standalone(svgs, attribution).text], { type: "image/svg+xml" }), `${name}.svg`);
}

export async function savePng(svgs: SVGSVGElement[], name: string, attribution: string): Promise<void> {
  const { text, width, height } = standalone(svgs, attribution);
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
