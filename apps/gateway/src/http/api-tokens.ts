/** API tokens (docs/protocols/livestorm.md, "API tokens"): how they are written, and who calls with one. */
import { createHash, randomBytes } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import {
  type ApiScope,
  asProblem,
  type CheckTokenReply,
  type CheckTokenRequest,
  ProblemError,
  TOKEN_CALLS,
} from '@posthorn/contracts';
import { GatewayCore } from '../core.js';
import { Bucket, tooFast } from '../session/limits.js';
import { Buckets } from './buckets.js';
import { networkOf } from './network.js';

/** Who calls with an API token. */
export interface ApiCaller {
  readonly audience: string;
  readonly tokenId: string;
  readonly scopes: readonly ApiScope[];
}

/** `ph_<id>_<secret>`, all of it word characters: found by scanners for secrets, and selected by a double click. */
const WRITTEN = /^(?:bearer +)?(ph_([0-9a-f]{32})_([0-9a-f]{64})) *$/i;

/** How long an answer of auth is good for without asking again, in ms. */
const REMEMBERED = { good: 60_000, bad: 10_000 } as const;
/** After which auth is asked again about a token that is remembered, when it was away, in ms. */
const AWAY = 10_000;
/** Answers that are remembered of each kind. */
const KEPT = 10_000;
/** Questions about tokens that are not remembered: of one address, and of all, per second and at once. */
const ASKED = { address: [5, 50], all: [200, 400] } as const;

interface Good {
  readonly caller: ApiCaller;
  /** Seconds since 1970. */
  readonly expiresAt: number | null;
  /** When auth is asked again, by `performance.now()`. */
  askAt: number;
}

interface Bad {
  readonly problem: ProblemError;
  readonly until: number;
}

/** A new secret, and what auth may know of it. The secret leaves this process once, in the answer to who asked. */
export function newSecret(): { readonly secret: string; readonly hash: string } {
  const secret = randomBytes(32).toString('hex');
  return { secret, hash: hashOf(secret) };
}

/** The text of a token. Never for a log. */
export function writtenToken(id: string, secret: string): string {
  return `ph_${id.replaceAll('-', '')}_${secret}`;
}

/**
 * Verifies API tokens. Auth is asked about each once a minute; meanwhile, and while auth is away, what it said
 * is remembered. A revocation ends what is remembered too: it comes to every gateway by the bucket `ph-revoked`.
 */
@Injectable()
export class ApiTokens {
  readonly #core: GatewayCore;
  readonly #good = new Remembered<Good>();
  readonly #bad = new Remembered<Bad>();
  readonly #asking = new Map<string, Promise<Good>>();
  readonly #addresses = new Buckets(...ASKED.address);
  readonly #all = new Bucket(...ASKED.all, performance.now());

  constructor(core: GatewayCore) {
    this.#core = core;
  }

  /**
   * Who calls with that `Authorization` header: the token bare, or after `Bearer`.
   * @param address of the caller: who guesses is slowed down, and others as little as can be
   * @throws ProblemError `unauthorized`, `token_expired`; `rate_limited` for unknown tokens that come too fast;
   *   `unavailable` while auth is away and the token is not remembered
   */
  verify(authorizationHeader: string | undefined, address = ''): Promise<ApiCaller> {
    return this.#core.metrics.checked('api_token', this.#verify(authorizationHeader, address));
  }

  async #verify(authorizationHeader: string | undefined, address: string): Promise<ApiCaller> {
    const check = readToken(authorizationHeader);
    const key = `${check.id}${check.hash}`;
    const now = performance.now();
    const bad = this.#bad.get(key);
    if (bad && now < bad.until) throw again(bad.problem);
    const known = this.#good.get(key);
    const good = known && now < known.askAt ? known : await this.#answer(key, check, known, address);
    const { caller, expiresAt } = good;
    if (this.#core.revocations.isTokenRevoked(caller.audience, caller.tokenId)) {
      this.#good.delete(key);
      throw new ProblemError('unauthorized', 'The API token was revoked');
    }
    if (expiresAt !== null && Date.now() >= expiresAt * 1_000) {
      this.#good.delete(key);
      throw new ProblemError('token_expired', 'The API token has expired');
    }
    return caller;
  }

  /** One question at a time about each token. */
  #answer(key: string, check: CheckTokenRequest, known: Good | undefined, address: string): Promise<Good> {
    const asked = this.#asking.get(key);
    if (asked) return asked;
    if (!known) this.#limit(address);
    const asking = this.#ask(key, check, known).finally(() => this.#asking.delete(key));
    this.#asking.set(key, asking);
    return asking;
  }

  async #ask(key: string, check: CheckTokenRequest, known: Good | undefined): Promise<Good> {
    try {
      const reply = await this.#core.rpc.call<CheckTokenRequest, CheckTokenReply>(TOKEN_CALLS.check, check);
      const { audience, scopes, expiresAt } = reply;
      const caller = { audience, tokenId: check.id, scopes };
      const good = { caller, expiresAt, askAt: performance.now() + REMEMBERED.good };
      this.#good.set(key, good);
      return good;
    } catch (error) {
      const problem = asProblem(error);
      if (problem.code === 'unavailable' && known) {
        known.askAt = performance.now() + AWAY;
        return known;
      }
      if (problem.status === 401) {
        this.#good.delete(key);
        this.#bad.set(key, { problem, until: performance.now() + REMEMBERED.bad });
      }
      throw problem;
    }
  }

  /** An address pays first, so that one that guesses leaves the others their share of all. */
  #limit(address: string): void {
    const now = performance.now();
    const wait = this.#addresses.take(networkOf(address), now) || this.#all.take(now);
    if (wait > 0) throw tooFast(wait);
  }
}

/** Answers by token; the one that was not used for longest goes when there are too many. */
class Remembered<T> {
  readonly #entries = new Map<string, T>();

  get(key: string): T | undefined {
    const entry = this.#entries.get(key);
    if (entry !== undefined) this.set(key, entry);
    return entry;
  }

  set(key: string, entry: T): void {
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (this.#entries.size > KEPT) this.#entries.delete(this.#entries.keys().next().value as string);
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }
}

/** Of a token its id, and the hash of its secret: the secret itself goes no further. */
function readToken(header: string | undefined): CheckTokenRequest {
  const [, token = '', id = '', secret = ''] = WRITTEN.exec(header ?? '') ?? [];
  if (token === '' || token !== token.toLowerCase()) {
    throw new ProblemError(
      'unauthorized',
      header ? 'The Authorization is not an API token' : 'Authorization: <API token> is required',
    );
  }
  return {
    id: id.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'),
    hash: hashOf(secret),
  };
}

function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** An error of its own for each call. */
function again({ code, detail }: ProblemError): ProblemError {
  return new ProblemError(code, detail);
}
