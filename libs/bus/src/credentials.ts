/** Who a service is to NATS. */
import { readFileSync } from 'node:fs';
import {
  credsAuthenticator,
  type NodeConnectionOptions,
  nkeyAuthenticator,
  nkeys,
} from '@nats-io/transport-node';

/** One of three; none where the servers let everybody in. */
export type NatsCredentials =
  | { readonly user: string; readonly password: string }
  /** The seed of a user's nkey, `SU…`. */
  | { readonly nkeySeed: string }
  /** The path of a credentials file, read anew at each connection, so that it can be rotated. */
  | { readonly credsFile: string };

/**
 * The options of the NATS client for them.
 * @throws TypeError for what are none, without a word of what was given
 */
export function loginOf(credentials: NatsCredentials | undefined): NodeConnectionOptions {
  if (credentials === undefined) return {};
  if ('user' in credentials && credentials.user && credentials.password) {
    return { user: credentials.user, pass: credentials.password };
  }
  if ('nkeySeed' in credentials && isUserSeed(credentials.nkeySeed)) {
    return { authenticator: nkeyAuthenticator(bytes(credentials.nkeySeed)) };
  }
  if ('credsFile' in credentials && credentials.credsFile) {
    const { credsFile } = credentials;
    return { authenticator: credsAuthenticator(() => readFileSync(credsFile)) };
  }
  throw new TypeError('credentials must be user and password, the nkeySeed of a user (SU…), or a credsFile');
}

function isUserSeed(seed: string): boolean {
  try {
    return nkeys.fromSeed(bytes(seed)).getPublicKey().startsWith('U');
  } catch {
    return false;
  }
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
