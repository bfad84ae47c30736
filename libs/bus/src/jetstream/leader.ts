/** Stored events, asked one by one of the stream's leader: what a follower does not have proves nothing. */
import type { JetStreamManager, StoredMsg } from '@nats-io/jetstream';
import { deadline } from '@nats-io/nats-core';
import type { MsgHdrs } from '@nats-io/transport-node';
import { type Scope, STREAMS } from '@posthorn/contracts';
import { headersOf } from './headers.js';
import type { InFlight } from './in-flight.js';

/** How long one question may take, in milliseconds: whoever died with it on its hands never answers. */
const QUESTION = 2_000;

export interface LeaderParts {
  readonly jsm: JetStreamManager;
  readonly inFlight: InFlight;
}

/**
 * The first stored message after a sequence whose subject a filter takes, null where there is none.
 * @throws where the leader does not answer
 */
export function nextStored(
  { jsm, inFlight }: LeaderParts,
  scope: Scope,
  subject: string,
  after: number,
): Promise<StoredMsg | null> {
  const asking = jsm.streams.getMessage(STREAMS[scope].name, nextOn(subject, after));
  return inFlight.untilLost(deadline(asking, QUESTION));
}

/** As {@link headersOf}: a stored message's headers are read at the first look too. */
export function storedHeaders(stored: StoredMsg): MsgHdrs | undefined {
  return headersOf({
    get headers() {
      return stored.header;
    },
  });
}

/** The query for the first message on a subject after a sequence, which the client's types leave out. */
function nextOn(subject: string, after: number): { seq: number } {
  const query: { seq: number; next_by_subj: string } = { seq: after + 1, next_by_subj: subject };
  return query;
}
