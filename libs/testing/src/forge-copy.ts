import { type NatsConnection, headers as newHeaders } from '@nats-io/transport-node';
import { HEADER, liveSubject, STREAMS, storedSubject } from '@posthorn/contracts';

/** A copy as a stream would republish it, with whatever sequences one likes. */
export interface ForgedCopy {
  readonly path: string;
  readonly sequence: number;
  /** The sequence before it on the same subject, 0 for none. */
  readonly previous: number;
  readonly message?: object;
}

/** Sends the copy of a global event of the audience `acme`, stored or not. */
export function forgeCopy(nc: NatsConnection, { path, sequence, previous, message = {} }: ForgedCopy): void {
  const headers = newHeaders();
  headers.set(HEADER.stream, STREAMS.global.name);
  headers.set(HEADER.subject, storedSubject('acme', 'global', '', path));
  headers.set(HEADER.sequence, String(sequence));
  headers.set(HEADER.lastSequence, String(previous));
  nc.publish(liveSubject('acme', 'global', '', path), JSON.stringify(message), { headers });
}
