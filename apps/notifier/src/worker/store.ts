/**
 * A batch of events in PostgreSQL: one transaction, one statement for each kind of row, however many events
 * there are.
 *
 * Every transaction takes its locks in one order, and rows of one table sorted: members, invitations,
 * notifications, inboxes. What PostgreSQL still finds to be a deadlock is run again.
 */
import { withTransaction } from '@posthorn/database';
import type { DataSource, EntityManager } from 'typeorm';
import { InboxChanges } from '../inbox/inbox-changes.js';
import { changeInvitations } from './invitations.js';
import { followMembers } from './members.js';
import { candidatesOf, findUnannounced, insertNotifications } from './notifications.js';
import { findWithdrawals, recordWithdrawals, withdrawInvites } from './withdrawals.js';
import type { Stored, Work } from './work.js';

export class Store {
  readonly #source: DataSource;

  constructor(source: DataSource) {
    this.#source = source;
  }

  /** Stores what the events want, all or nothing; the answer has one element for each event, in their order. */
  apply(batch: readonly Work[]): Promise<Stored[]> {
    return withTransaction(this.#source, (tx) => applyBatch(tx, batch));
  }

  /** Notes that their recipients were told. */
  async markEmitted(created: readonly string[], withdrawn: readonly string[]): Promise<void> {
    await withTransaction(this.#source, async (tx) => {
      if (created.length > 0) {
        await tx.query(
          `UPDATE notification SET emitted_at = now() WHERE id = ANY ($1::uuid[]) AND emitted_at IS NULL`,
          [created],
        );
      }
      if (withdrawn.length > 0) {
        await tx.query(`DELETE FROM withdrawal WHERE id = ANY ($1::uuid[])`, [withdrawn]);
      }
    });
  }
}

async function applyBatch(tx: EntityManager, batch: readonly Work[]): Promise<Stored[]> {
  const stored = batch.map((): Stored => ({ failure: undefined, created: [], withdrawn: [], written: 0 }));
  await followMembers(tx, batch);
  const invitations = await changeInvitations(tx, batch);
  const candidates = await candidatesOf(tx, batch, stored, invitations);
  const inboxes = new InboxChanges();
  await insertNotifications(tx, batch, candidates, stored, inboxes);
  await findUnannounced(tx, batch, candidates, stored);
  const withdrawn = await withdrawInvites(tx, invitations, inboxes);
  const counts = await inboxes.update(tx);
  await recordWithdrawals(tx, withdrawn, counts);
  await findWithdrawals(tx, batch, stored);
  return stored;
}
