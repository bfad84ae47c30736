/** Headers off and onto NATS. */
import { MsgHdrsImpl } from '@nats-io/nats-core';
import type { MsgHdrs } from '@nats-io/transport-node';

/**
 * The headers of a message, undefined where it has none or nats.js cannot read them. It throws at the sight of
 * a space in a name or a lone line break in a value, and servers pass both on: in the callback of a
 * subscription that throw would end the reading of the whole connection.
 */
export function headersOf(message: { readonly headers?: MsgHdrs | undefined }): MsgHdrs | undefined {
  try {
    return message.headers;
  } catch {
    return undefined;
  }
}

/**
 * The last value of a header, '' where there is none. As `headers.last`, which looks every name over for each
 * question.
 */
export function lastOf(headers: MsgHdrs, name: string): string {
  return (headers as MsgHdrsImpl).headers.get(name)?.at(-1) ?? '';
}

/** Text for the value of a header, on one line: names of services come from configuration, ids from anybody. */
export function headerText(text: string): string {
  return CONTROL.test(text) ? text.replace(/\p{Cc}+/gu, ' ').trim() : text.trim();
}

const CONTROL = /\p{Cc}/u;

/** Headers that are only written: their bytes at once, since the client looks each name and value over. */
export class WrittenHeaders extends MsgHdrsImpl {
  readonly #bytes: Buffer;

  /** @param lines names and values by turns; names as they are, values of one line */
  constructor(lines: readonly string[]) {
    super();
    let text = 'NATS/1.0\r\n';
    for (let i = 0; i < lines.length; i += 2) text += `${lines[i]}: ${lines[i + 1]}\r\n`;
    this.#bytes = Buffer.from(`${text}\r\n`);
  }

  override encode(): Uint8Array {
    return this.#bytes;
  }

  get length(): number {
    return this.#bytes.length;
  }
}

/** What a file stream adds to a message with headers: its record. */
const RECORD = 34;

/** The bytes by which a message with headers makes a file stream larger. */
export function storedBytes(subject: string, headers: WrittenHeaders, data: Uint8Array): number {
  return RECORD + subject.length + headers.length + data.length;
}
