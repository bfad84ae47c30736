import { timingSafeEqual } from 'node:crypto';
import {
  type ApiTokenItem,
  type ApiTokenPage,
  type CheckTokenReply,
  type CheckTokenRequest,
  checkName,
  type IssueTokenRequest,
  type ListTokensRequest,
  ProblemError,
} from '@posthorn/contracts';
import type { Logger } from '@posthorn/service';
import { v7 as uuidv7 } from 'uuid';
import type { AuthMetrics } from '../metrics.js';
import { itemOf } from './stored-token.js';
import { isTokenId, type TokenStore } from './token-store.js';

/** Issues, lists and checks API tokens. {@link Revoking} ends them. */
export class Tokens {
  constructor(
    private readonly store: TokenStore,
    private readonly metrics: Pick<AuthMetrics, 'tokenChecks' | 'tokensIssued'>,
    private readonly logger: Logger,
  ) {}

  /** @throws {ProblemError} `request_invalid`, `token_limit` */
  async issue(request: IssueTokenRequest): Promise<ApiTokenItem> {
    const { name, scopes, hash, created_by, expires_at } = request;
    const audience = checkName('audience', request.audience);
    // What a terminal or PostgreSQL would trip over names nothing.
    if (!name.isWellFormed() || /\p{Cc}/u.test(name)) {
      throw invalid('name', 'must be a text without control characters');
    }
    const token = await this.store.insert({
      id: uuidv7(),
      audience,
      name,
      scopes,
      hash: Buffer.from(hash, 'hex'),
      createdBy: created_by ?? null,
      expiresAt: expires_at === undefined ? null : momentToCome(expires_at),
    });
    this.metrics.tokensIssued.inc();
    return itemOf(token);
  }

  /** @throws {ProblemError} `request_invalid` for a cursor that is none */
  async list({ audience, limit, cursor }: ListTokensRequest): Promise<ApiTokenPage> {
    if (cursor !== undefined && !isTokenId(cursor)) {
      throw invalid('cursor', 'must be the next_cursor of another page');
    }
    const tokens = await this.store.page(audience, limit + 1, cursor);
    const items = tokens.slice(0, limit).map(itemOf);
    return { items, next_cursor: tokens.length > limit ? items.at(-1)!.id : null };
  }

  /** @throws {ProblemError} `unauthorized`, `token_expired` */
  async check({ id, hash }: CheckTokenRequest): Promise<CheckTokenReply> {
    const { tokenChecks } = this.metrics;
    const token = await this.store.find(id);
    if (!token || token.revokedAt || !timingSafeEqual(token.hash, Buffer.from(hash, 'hex'))) {
      tokenChecks.refused.inc();
      throw new ProblemError('unauthorized', 'The API token is unknown, or was revoked');
    }
    const { audience, scopes, expiresAt } = token;
    if (expiresAt && expiresAt <= new Date()) {
      tokenChecks.expired.inc();
      throw new ProblemError('token_expired', 'The API token has expired');
    }
    tokenChecks.good.inc();
    // A good token stays good where its use cannot be noted.
    await this.store.use(token).catch((err) => this.logger.warn({ err }, 'the use of a token was not noted'));
    return { audience, scopes, expiresAt: expiresAt && expiresAt.getTime() / 1_000 };
  }
}

function momentToCome(text: string): Date {
  const moment = new Date(text);
  if (!(moment.getTime() > Date.now())) throw invalid('expires_at', 'must be a moment to come');
  return moment;
}

function invalid(property: string, message: string): ProblemError {
  return new ProblemError('request_invalid', `${property} ${message}`, {
    errors: [{ path: `/${property}`, message }],
  });
}
