/**
 * A batch of events in PostgreSQL: one transaction, one statement for each kind of row, however many events
 * there are.
 *
 * Every transaction takes its locks in one order, and rows of one table sorted: member lists, members, invitations,
 * notifications, inboxes. What PostgreSQL still finds to be a deadlock is run again.
 */
import { withTransaction } from '@posthorn/database';
import type { DataSource, EntityManager } from 'typeorm';
import { InboxChanges } from '../inbox/inbox-changes.js';
import { changeInvitations } from './invitations.js';
import { followMembers } from './members.js';
import { candidatesOf, findUnannounced, insertNotifications } from './notifications.js';
import { withdrawInvites } from './withdrawals.js';
import type { Applied, Stored, Work } from './work.js';

export class Store {
  readonly #source: DataSource;

  constructor(source: DataSource) {
    this.#source = source;
  }

  /** Stores what the events want, all or nothing. */
  apply(batch: readonly Work[]): Promise<Applied> {
    return withTransaction(this.#source, (tx) => applyBatch(tx, batch));
  }

  /** Notes that their recipients were told. */
  async markEmitted(created: readonly string[]): Promise<void> {
    await withTransaction(this.#source, (tx) =>
      tx.query(
        `WITH told AS (
           SELECT n.id FROM notification n WHERE n.id = ANY ($1::uuid[]) AND n.emitted_at IS NULL
           ORDER BY n.id
           FOR NO KEY UPDATE)
         UPDATE notification n SET emitted_at = now() FROM told WHERE n.id = told.id`,
        [created],
      ),
    );
  }
}

async function applyBatch(tx: EntityManager, batch: readonly Work[]): Promise<Applied> {
  const stored = batch.map((): Stored => ({ failure: undefined, created: [], written: 0 }));
  await followMembers(tx, batch);
  const invitations = await changeInvitations(tx, batch);
  const candidates = await candidatesOf(tx, batch, stored, invitations);
  const inboxes = new InboxChanges();
  await insertNotifications(tx, batch, candidates, stored, inboxes);
  await findUnannounced(tx, batch, candidates, stored);
  await withdrawInvites(tx, invitations, inboxes);
  const { updates } = await inboxes.record(tx);
  return { stored, updates };
}
