// How much has come over the network, and how much of what a view waits for is there.

interface Part {
  received: number;
  /** Bytes that it takes; 0 while they are not known. */
  total: number;
  /** Reads of it that have begun and not ended. */
  open: number;
}

export const traffic = { bytes: 0, open: 0 };
export const listeners = new Set<() => void>();
/** By the name of an array or a file. */
const parts = new Map<string, Part>();

/** A read of a part begins; what was read of it before does not count. */
export function begin(name: string): void {
  const part = parts.get(name);
  if (part?.open) part.open++;
  else parts.set(name, { received: 0, total: 0, open: 1 });
}

/** The part is there, or will not come. */
export function end(name: string): void {
  const part = parts.get(name);
  if (part) part.open--;
  tell();
}

/** So many bytes more are known to belong to a part. */
export function expect(name: string, bytes: number): void {
  const part = parts.get(name);
  if (part) part.total += bytes;
}

/** So many requests more are on their way. */
export function pending(requests: number): void {
  traffic.open += requests;
  tell();
}

/** Share of some parts that is there, 0 to 1: each counts the same, and in itself by its bytes. */
export function shareOf(names: string[]): number {
  const shares = names.map((name) => {
    const part = parts.get(name);
    if (!part) return 0;
    if (!part.open) return 1;
    // An answer without its length known in advance, or unpacked on the way, may have more bytes than were expected.
    return part.total ? Math.min(1, part.received / part.total) : 0;
  });
  return shares.reduce((sum, share) => sum + share, 0) / Math.max(1, shares.length);
}

/** The body of an answer, counted while it arrives. */
export async function received(answer: Response, name?: string): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  const count = (piece: Uint8Array) => {
    pieces.push(piece);
    traffic.bytes += piece.length;
    const part = name === undefined ? undefined : parts.get(name);
    if (part) part.received += piece.length;
    tell();
  };
  if (!answer.body) {
    count(new Uint8Array(await answer.arrayBuffer()));
  } else {
    const reader = answer.body.getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) count(piece.value);
  }
  return new Uint8Array(await new Blob(pieces as BlobPart[]).arrayBuffer());
}

function tell(): void {
  for (const listener of listeners) listener();
}
