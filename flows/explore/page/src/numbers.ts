// Channels and numbers as they are shown.

export const SPEED_OF_LIGHT = 299_792_458;

export interface Grid {
  /** Values by rows: `data[y * columns + x]`. */
  data: Float64Array;
  columns: number;
  rows: number;
}

/** A channel csi[x, y] with parts (x, y, 2), C order. */
export interface Channel {
  parts: ArrayLike<number>;
  columns: number;
  rows: number;
}

export function grid(columns: number, rows: number, value: (x: number, y: number) => number): Grid {
  const data = new Float64Array(columns * rows);
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) data[y * columns + x] = value(x, y);
  return { data, columns, rows };
}

const at = ({ parts, rows }: Channel, x: number, y: number): [number, number] => {
  const place = 2 * (x * rows + y);
  return [parts[place], parts[place + 1]];
};

/** |csi| in dB of power; NaN where it is 0. */
export function magnitude(channel: Channel): Grid {
  return grid(channel.columns, channel.rows, (x, y) => decibel(Math.hypot(...at(channel, x, y)) ** 2));
}

/** Phase in degrees. */
export function phase(channel: Channel): Grid {
  return grid(channel.columns, channel.rows, (x, y) => {
    const [real, imaginary] = at(channel, x, y);
    return real === 0 && imaginary === 0 ? Number.NaN : (Math.atan2(imaginary, real) * 180) / Math.PI;
  });
}

/**
 * |F h|^2 in dB, the unnormalised 2-D DFT, at spatial frequencies -n/2 ... n/2 - 1 of both axes.
 *
 * The transform is separable: first along y, then along x.
 */
export function spectrum(channel: Channel): Grid {
  const { columns, rows } = channel;
  const [alongX, alongY] = [waves(columns), waves(rows)];
  const half = new Float64Array(2 * columns * rows);
  for (let x = 0; x < columns; x++) {
    for (let k = 0; k < rows; k++) {
      let [real, imaginary] = [0, 0];
      for (let y = 0; y < rows; y++) {
        const [c, s] = alongY[(k * y) % rows];
        const [a, b] = at(channel, x, y);
        real += a * c - b * s;
        imaginary += a * s + b * c;
      }
      half[2 * (x * rows + k)] = real;
      half[2 * (x * rows + k) + 1] = imaginary;
    }
  }
  return grid(columns, rows, (column, row) => {
    const kx = unshifted(column, columns);
    const ky = unshifted(row, rows);
    let [real, imaginary] = [0, 0];
    for (let x = 0; x < columns; x++) {
      const [c, s] = alongX[(kx * x) % columns];
      const [a, b] = [half[2 * (x * rows + ky)], half[2 * (x * rows + ky) + 1]];
      real += a * c - b * s;
      imaginary += a * s + b * c;
    }
    return decibel(real ** 2 + imaginary ** 2);
  });
}

/** exp(-j 2 pi i / n) for every i. */
function waves(n: number): [number, number][] {
  return Array.from({ length: n }, (_, i) => {
    const angle = (-2 * Math.PI * i) / n;
    return [Math.cos(angle), Math.sin(angle)];
  });
}

const unshifted = (place: number, n: number) => (place - Math.floor(n / 2) + n) % n;

/** Frequency -n/2 ... n/2 - 1 of a DFT bin. */
export const centred = (bin: number, n: number) => ((bin + Math.floor(n / 2)) % n) - Math.floor(n / 2);

/** The bin of the spectrum in which a beam of the codebook is the strongest: the beam's index negated. */
export function binOfBeam(beam: number, columns: number, rows: number): [number, number] {
  const [kx, ky] = [Math.floor(beam / rows), beam % rows];
  return [(columns - kx) % columns, (rows - ky) % rows];
}

export const degrees = (radians: number) => (radians * 180) / Math.PI;

export const decibel = (power: number) => (power > 0 ? 10 * Math.log10(power) : Number.NaN);

/** Power over delay in dB of a channel at equally spaced frequencies (parts of subcarrier s at 2 s), by the inverse DFT. */
export function delayProfile(
  parts: ArrayLike<number>,
  subcarriers: number,
  spacing: number,
): { delay: number; power: number }[] {
  return Array.from({ length: subcarriers }, (_, n) => {
    let [real, imaginary] = [0, 0];
    for (let s = 0; s < subcarriers; s++) {
      const angle = (2 * Math.PI * n * s) / subcarriers;
      real += parts[2 * s] * Math.cos(angle) - parts[2 * s + 1] * Math.sin(angle);
      imaginary += parts[2 * s] * Math.sin(angle) + parts[2 * s + 1] * Math.cos(angle);
    }
    return { delay: n / (subcarriers * spacing), power: decibel((real ** 2 + imaginary ** 2) / subcarriers ** 2) };
  });
}

/** RMS delay spread in s, and the first delay, of paths with complex gains (parts (path, 2)); NaN where there are none. */
export function delays(gains: ArrayLike<number>, delay: ArrayLike<number>): { spread: number; first: number } {
  let [total, mean, square, first] = [0, 0, 0, Number.POSITIVE_INFINITY];
  for (let p = 0; p < delay.length; p++) {
    const power = gains[2 * p] ** 2 + gains[2 * p + 1] ** 2;
    if (power === 0) continue;
    total += power;
    mean += power * delay[p];
    square += power * delay[p] ** 2;
    first = Math.min(first, delay[p]);
  }
  if (total === 0) return { spread: Number.NaN, first: Number.NaN };
  return { spread: Math.sqrt(Math.max(0, square / total - (mean / total) ** 2)), first };
}

/** A number for people: fixed digits, a real minus sign, and a dash for what is not there. */
export function shown(value: number | null | undefined, digits = 1, unit = ""): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace("-", "−") + (unit ? `\u00a0${unit}` : "");
}

/** Degrees north and east, as maps write them. */
export function coordinates(latitude: number, longitude: number): string {
  const one = (value: number, [plus, minus]: string) => `${shown(Math.abs(value), 5)}° ${value < 0 ? minus : plus}`;
  return `${one(latitude, "NS")}, ${one(longitude, "EW")}`;
}

export function bytesShown(bytes: number): string {
  return bytes < 1e6 ? `${shown(bytes / 1e3, 0)} kB` : `${shown(bytes / 1e6, 1)} MB`;
}

export function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

export const plural = (n: number, word: string) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
