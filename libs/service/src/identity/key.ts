import { hkdfSync } from 'node:crypto';
import { type KeyPurpose, type Principal, ProblemError } from '@posthorn/contracts';
import { CompactEncrypt, compactDecrypt } from 'jose';

/** What a key is for, and until when it opens. */
export interface SealOptions {
  readonly purpose: KeyPurpose;
  /** Seconds since 1970. */
  readonly expiresAt: number;
}

/** What is inside a key. */
interface Sealed extends SealOptions {
  readonly principal: Principal;
}

/** The longest key that is looked at: a token of the longest kind, sealed. */
const KEY_LIMIT = 32 * 1024;

/**
 * The formats under which keys are derived from a secret. Another layout of a key's content needs another
 * label: keys that are on their way then do not open, instead of being read wrongly.
 */
const LABEL = { encryption: 'posthorn key 1', id: 'posthorn key 1 id' } as const;

/**
 * Seals principals into socket and stream keys, and opens them: encrypted compact JWEs (`dir`, `A256GCM`) of
 * URL-safe characters. A key holds the whole principal, so whoever opens it asks nobody.
 */
export class KeyRing {
  /** By `kid`; the first one seals. */
  readonly #keys: ReadonlyMap<string, Uint8Array>;
  readonly #sealing: string;

  /**
   * @param secret one secret, or several separated by commas: the first seals, all open, so that a secret can
   *   be replaced while keys of the one before it are on their way
   * @throws {RangeError} when there is none
   */
  constructor(secret: string) {
    const secrets = secret
      .split(',')
      .map((one) => one.trim())
      .filter((one) => one !== '');
    this.#keys = new Map(
      secrets.map((one) => [
        derive(one, LABEL.id, 6).toString('base64url'),
        derive(one, LABEL.encryption, 32),
      ]),
    );
    const [first] = this.#keys.keys();
    if (first === undefined) throw new RangeError('a key ring needs a secret');
    this.#sealing = first;
  }

  /** A key for a principal. */
  seal(principal: Principal, { purpose, expiresAt }: SealOptions): Promise<string> {
    const content: Sealed = { purpose, expiresAt, principal };
    return new CompactEncrypt(new TextEncoder().encode(JSON.stringify(content)))
      .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid: this.#sealing })
      .encrypt(this.#keys.get(this.#sealing) as Uint8Array);
  }

  /**
   * The principal of a key.
   * @throws {ProblemError} `token_expired` for a key whose only fault is its age, else `unauthorized`
   */
  async open(key: string, purpose: KeyPurpose): Promise<Principal> {
    if (key.length > KEY_LIMIT || !isCanonical(key)) throw notOurs();
    let sealed: Sealed;
    try {
      const { plaintext } = await compactDecrypt(key, ({ kid }) => this.#find(kid), {
        keyManagementAlgorithms: ['dir'],
        contentEncryptionAlgorithms: ['A256GCM'],
      });
      sealed = JSON.parse(new TextDecoder().decode(plaintext)) as Sealed;
    } catch {
      throw notOurs();
    }
    if (sealed.purpose !== purpose) {
      throw new ProblemError('unauthorized', `The key is for a ${sealed.purpose}, not for a ${purpose}`);
    }
    if (sealed.expiresAt * 1_000 <= Date.now())
      throw new ProblemError('token_expired', 'The key has expired');
    return sealed.principal;
  }

  #find(kid: string | undefined): Uint8Array {
    const key = this.#keys.get(kid ?? '');
    if (!key) throw notOurs();
    return key;
  }
}

function derive(secret: string, label: string, bytes: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', label, bytes));
}

/** One key has one spelling: the last character of a base64url text can hide bits that decoding drops. */
function isCanonical(key: string): boolean {
  return key.split('.').every((part) => Buffer.from(part, 'base64url').toString('base64url') === part);
}

function notOurs(): ProblemError {
  return new ProblemError('unauthorized', 'The key is not valid');
}
