/** Server-Sent Events as bytes (WHATWG HTML, "Server-sent events"): blocks of lines, each ended by an empty one. */

const END = Buffer.from('\n\n');
const LINE_END = /\r\n|\r|\n/;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;

/** A comment: a sign of life that no listener hears. */
export const COMMENT = ':\n';
/** What ends a block. */
export const BLOCK_END = '\n';

/** `id:`, for whatever follows in the block, or alone. A cursor holds no line end. */
export function idLine(id: string | undefined): string {
  return id === undefined ? '' : `id: ${id}\n`;
}

/** `event:`. A name may be anything, an end of a line too. */
export function eventLine(name: string): string {
  return `event: ${name.replace(/\r/g, '%0D').replace(/\n/g, '%0A')}\n`;
}

/** `retry:`: how long a client waits before it comes again, in milliseconds. */
export function retryLine(ms: number): string {
  return `retry: ${Math.round(ms)}\n`;
}

/** A text, as many lines of `data:` as it has: the client puts them together again. */
export function textBlock(head: string, text: string): Buffer {
  const lines = text.split(LINE_END).map((line) => `data: ${line}\n`);
  return Buffer.from(`${head}${lines.join('')}${BLOCK_END}`);
}

/** A JSON payload's own bytes as one line of `data:`. */
export function jsonBlock(head: string, json: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${head}data: `), oneLine(json), END]);
}

/** JSON has ends of lines between its tokens only, where a space means the same. */
function oneLine(json: Uint8Array): Uint8Array {
  if (!json.includes(LF) && !json.includes(CR)) return json;
  return json.map((byte) => (byte === LF || byte === CR ? SPACE : byte));
}
