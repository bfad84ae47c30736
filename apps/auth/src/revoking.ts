import {
  checkName,
  ProblemError,
  type RevokeReply,
  type RevokeRequest,
  type RevokeTokenReply,
  type RevokeTokenRequest,
} from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import type { DataSource } from 'typeorm';
import { revocationIn, type StoredRevocation } from './entities.js';
import type { Projection } from './projection.js';
import type { RevocationStore } from './revocation-store.js';
import { momentOf, type Target, targetOf } from './target.js';
import { endTokens } from './tokens/token-store.js';

/** What {@link Revoking} needs. */
export interface RevokingOptions {
  readonly source: DataSource;
  readonly store: RevocationStore;
  readonly projection: Projection;
}

/** Ends tokens: JWTs and API tokens. */
export class Revoking {
  constructor(private readonly options: RevokingOptions) {}

  /**
   * Stores a revocation, then tells the gateways. Asking again is harmless, and never weakens what was asked
   * before: the answer says what is in force.
   *
   * API tokens that it covers are ended in their table and revoked one by one, by their ids: their end must
   * not depend on how long a revocation is kept, as most of them have no end of their own.
   * @throws {ProblemError} `request_invalid`
   */
  async revoke(request: RevokeRequest): Promise<RevokeReply> {
    const target = targetOf(request);
    const moment = momentOf(target, request);
    const { revocation, ofTokens } = await withTransaction(this.options.source, async (manager) => {
      const { store } = this.options;
      const ended = await endTokens(manager, target, moment);
      const ofTokens: StoredRevocation[] = [];
      // The lock of endTokens keeps these in the hands of one transaction.
      if (target.kind === 'audience') {
        for (const name of ended) {
          ofTokens.push(await store.record({ ...target, kind: 'token', name }, null, manager));
        }
      }
      return { revocation: await store.record(target, moment, manager), ofTokens };
    });
    const effective = await this.#project([revocation, ...ofTokens]);
    return { ...revocationIn(revocation), effective };
  }

  /**
   * Ends one API token.
   * @throws {ProblemError} `token_not_found`, also for one that was revoked before
   */
  async revokeApiToken({ audience, id }: RevokeTokenRequest): Promise<RevokeTokenReply> {
    const target: Target = { audience: checkName('audience', audience), kind: 'token', name: id };
    const revocation = await withTransaction(this.options.source, async (manager) => {
      const [ended] = await endTokens(manager, target, null);
      if (ended === undefined) throw new ProblemError('token_not_found', 'There is no such API token');
      return this.options.store.record(target, null, manager);
    });
    return { effective: await this.#project([revocation]) };
  }

  /** Whether all of them are in the bucket. */
  async #project(revocations: readonly StoredRevocation[]): Promise<boolean> {
    const { projection } = this.options;
    const pushed = await Promise.all(revocations.map((row) => projection.push(row, revocationIn(row))));
    return pushed.every(Boolean);
  }
}
