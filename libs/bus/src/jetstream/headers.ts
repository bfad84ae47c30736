/** Headers off and onto NATS. */
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

/** Text for the value of a header, on one line: names of services come from configuration, ids from anybody. */
export function headerText(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').trim();
}

/** What a file stream adds to a message with headers: its record, and the first and last line of the headers. */
const RECORD = 34 + 'NATS/1.0\r\n\r\n'.length;

/** The bytes by which a message with headers makes a file stream larger. */
export function storedBytes(subject: string, headers: MsgHdrs, data: Uint8Array): number {
  let bytes = RECORD + subject.length + data.length;
  for (const [name, values] of headers) {
    for (const value of values) bytes += name.length + Buffer.byteLength(value) + ': \r\n'.length;
  }
  return bytes;
}
