/**
 * Tells users how their inboxes changed: each update that `InboxChanges` (inbox-changes.ts) has recorded becomes
 * one `usernotification:updated`, under its own id, however often that is tried.
 */
import type { Bus } from '@posthorn/bus/platform';
import { ProblemError } from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { Logger } from '@posthorn/service';
import type { DataSource } from 'typeorm';
import type { RecordedUpdate } from './inbox-changes.js';
import { draftOf } from './telling.js';

/** Updates that the relay takes at once. */
const RELAY_BATCH = 100;

/** Publishes that are in flight at once. */
const PUBLISHES = 500;

/** How long the relay leaves an update to the process that has recorded it. */
const HEAD_START = '5 seconds';

export interface InboxUpdatesOptions {
  readonly source: DataSource;
  readonly bus: Pick<Bus, 'publish'>;
  readonly logger: Pick<Logger, 'warn'>;
}

/**
 * Whoever records updates announces them right after the commit; what a crash or an outage left, every replica
 * relays. No update goes out ahead of the `usernotification:created` of a notification that it is about: a
 * client would show as open what it hears of last. Beyond that, updates of one inbox go out by version, unless
 * a publish fails or two processes change the inbox at the same moment: the version says which is newer.
 */
export class InboxUpdates {
  readonly #options: InboxUpdatesOptions;
  readonly #announcing = new Set<Promise<void>>();

  constructor(options: InboxUpdatesOptions) {
    this.#options = options;
  }

  /**
   * Publishes what a committed transaction has recorded. Never rejects: what cannot be told now is relayed. Wait
   * for it to bound how much is under way; a caller that waits for an answer need not.
   */
  announce(updates: readonly RecordedUpdate[]): Promise<void> {
    if (updates.length === 0) return Promise.resolve();
    const announcing = this.#announce(updates).catch(() => {});
    this.#announcing.add(announcing);
    return announcing.finally(() => this.#announcing.delete(announcing));
  }

  /**
   * Tells what was left, by version for each inbox, until nothing is that can be told. Replicas may run it at the
   * same time: each takes other updates.
   * @throws where database or bus are away
   */
  async relay(): Promise<void> {
    for (;;) {
      const told = await withTransaction(this.#options.source, async (tx) => {
        const left: RecordedUpdate[] = await tx.query(
          `SELECT u.id, u.audience, u.message, u.untold, u.traceparent
           FROM inbox_update u
           WHERE (u.untold = '{}' AND u.recorded_at < now() - $1::interval)
              -- Counted for each: as an anti-join it would read all notifications.
              OR (u.untold <> '{}' AND 0 = (
                SELECT count(*) FROM notification n WHERE n.id = ANY (u.untold) AND n.emitted_at IS NULL))
           ORDER BY u.audience, u.user_id, u.version
           LIMIT $2
           FOR UPDATE SKIP LOCKED`,
          [HEAD_START, RELAY_BATCH],
        );
        const { done, failure } = await this.#publish(left);
        if (done.length > 0) await tx.query('DELETE FROM inbox_update WHERE id = ANY ($1::uuid[])', [done]);
        return { count: left.length, failure };
      });
      if (told.failure) throw told.failure;
      if (told.count < RELAY_BATCH) return;
    }
  }

  /** Resolves when nothing is being announced. */
  async settled(): Promise<void> {
    while (this.#announcing.size > 0) await Promise.all(this.#announcing);
  }

  async #announce(updates: readonly RecordedUpdate[]): Promise<void> {
    const { source } = this.#options;
    const { done } = await this.#publish(await this.#ready(updates));
    if (done.length > 0) await source.query('DELETE FROM inbox_update WHERE id = ANY ($1::uuid[])', [done]);
  }

  /** Those that are about nothing that is yet to be told as new. */
  async #ready(updates: readonly RecordedUpdate[]): Promise<readonly RecordedUpdate[]> {
    const asked = updates.flatMap(({ untold }) => untold);
    if (asked.length === 0) return updates;
    const rows: { id: string }[] = await this.#options.source.query(
      'SELECT id FROM notification WHERE id = ANY ($1::uuid[]) AND emitted_at IS NULL',
      [asked],
    );
    const waits = new Set(rows.map(({ id }) => id));
    return updates.filter(({ untold }) => !untold.some((id) => waits.has(id)));
  }

  /** Publishes in order; returns the ids of what is done with, and why something is not. */
  async #publish(updates: readonly RecordedUpdate[]): Promise<{ done: string[]; failure?: unknown }> {
    const done: string[] = [];
    for (let start = 0; start < updates.length; start += PUBLISHES) {
      const some = updates.slice(start, start + PUBLISHES);
      const results = await Promise.allSettled(
        some.map((update) =>
          this.#options.bus.publish(draftOf({ topic: 'usernotification:updated', ...update })),
        ),
      );
      let failure: unknown;
      results.forEach((result, i) => {
        const { id, audience } = some[i]!;
        if (result.status === 'fulfilled') {
          done.push(id);
        } else if (neverTold(result.reason)) {
          done.push(id);
          this.#options.logger.warn({ err: result.reason, id, audience }, 'an inbox update cannot be told');
        } else {
          failure ??= result.reason;
        }
      });
      if (failure) return { done, failure };
    }
    return { done };
  }
}

/** Whether another try is bound to fail: the audience is gone, or the event is none. */
function neverTold(error: unknown): boolean {
  const codes: readonly string[] = ['audience_not_found', 'payload_invalid', 'payload_too_large'];
  return error instanceof ProblemError && codes.includes(error.code);
}
