import type { EntityManager } from 'typeorm';
import { keyOf } from '../keys.js';
import type { Work } from './work.js';

/** A user's invitation into a community. */
export interface Invitation {
  readonly audience: string;
  readonly community: string;
  readonly target: string;
  /** The place in the stream of the latest cancel; 0: never cancelled. */
  readonly cancelled: bigint;
  /** The event id of a cancel of this batch, else empty. */
  readonly cancel: string;
  /** W3C trace context of that cancel. */
  readonly traceparent?: string | undefined;
}

/**
 * Notes cancels, and locks the invitations that the batch is about: an invite and its cancel in two replicas
 * come one after the other, whichever is first. The same cancel published once more counts where it was first.
 */
export async function changeInvitations(
  tx: EntityManager,
  batch: readonly Work[],
): Promise<ReadonlyMap<string, Invitation>> {
  const changes = new Map<string, Invitation>();
  const seen = new Set<string>();
  for (const { audience, eventId, ordinal, traceparent, wanted } of batch) {
    if (!wanted.invitation) continue;
    const { kind, community, target } = wanted.invitation;
    const key = keyOf(audience, community, target);
    const change = changes.get(key) ?? { audience, community, target, cancelled: 0n, cancel: '' };
    const again = seen.has(keyOf(key, eventId));
    seen.add(keyOf(key, eventId));
    const newer = kind === 'cancelled' && !again && ordinal > change.cancelled;
    changes.set(key, newer ? { ...change, cancelled: ordinal, cancel: eventId, traceparent } : change);
  }
  if (changes.size === 0) return changes;
  const rows = [...changes.values()];
  const places: { audience: string; community: string; target: string; cancelled: string }[] = await tx.query(
    `INSERT INTO invitation AS i (audience, community, target, cancelled, cancelled_by)
     SELECT *
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
     ORDER BY 1, 2, 3
     ON CONFLICT (audience, community, target) DO UPDATE SET
       cancelled = CASE WHEN excluded.cancelled_by = i.cancelled_by THEN i.cancelled
                        ELSE GREATEST(i.cancelled, excluded.cancelled) END,
       cancelled_by = CASE WHEN excluded.cancelled > i.cancelled THEN excluded.cancelled_by
                           ELSE i.cancelled_by END
     RETURNING audience, community, target, cancelled`,
    [
      rows.map(({ audience }) => audience),
      rows.map(({ community }) => community),
      rows.map(({ target }) => target),
      rows.map(({ cancelled }) => String(cancelled)),
      rows.map(({ cancel }) => cancel),
    ],
  );
  for (const { audience, community, target, cancelled } of places) {
    const key = keyOf(audience, community, target);
    changes.set(key, { ...changes.get(key)!, cancelled: BigInt(cancelled) });
  }
  return changes;
}
