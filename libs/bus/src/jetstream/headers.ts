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
