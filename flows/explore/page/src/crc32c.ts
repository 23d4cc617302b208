// CRC-32C (Castagnoli), which guards the index of a shard; zarrita reads past it.

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

export function crc32c(bytes: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Whether the last four bytes are the checksum of those before. */
export function isIntact(bytes: Uint8Array): boolean {
  const end = bytes.length - 4;
  if (end < 0) return false;
  return new DataView(bytes.buffer, bytes.byteOffset + end, 4).getUint32(0, true) === crc32c(bytes.subarray(0, end));
}
