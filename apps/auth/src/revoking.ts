import type { RevokeReply, RevokeRequest } from '@posthorn/contracts';
import { revocationIn } from './entities.js';
import type { Projection } from './projection.js';
import type { RevocationStore } from './revocation-store.js';
import { momentOf, targetOf } from './target.js';

/** Ends tokens. */
export class Revoking {
  constructor(
    private readonly store: RevocationStore,
    private readonly projection: Projection,
  ) {}

  /**
   * Stores a revocation, then tells the gateways. Asking again is harmless, and never weakens what was asked
   * before: the answer says what is in force.
   * @throws {ProblemError} `request_invalid`
   */
  async revoke(request: RevokeRequest): Promise<RevokeReply> {
    const target = targetOf(request);
    const revocation = revocationIn(await this.store.record(target, momentOf(target, request)));
    return { ...revocation, effective: await this.projection.push(target, revocation) };
  }
}
