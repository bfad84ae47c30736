/**
 * NATS subjects (docs/protocols/events.md, "Subjects").
 *
 * Every segment, key, audience and instance is one token. `encodeToken` is injective, so equal subjects mean
 * equal audiences, scopes, instances, keys and segments: a topic's identity is its subject.
 */
import { ProblemError } from './problem.js';

/** Where an event lives: one deployment of the platform, or the whole cluster. */
export type Scope = 'local' | 'global';

/** The token that stands where an unkeyed event has its key. A key that is itself `-` is escaped. */
export const NO_KEY = '-';

/**
 * The longest subject, in characters: a server closes the connection of whoever sends a longer line of protocol
 * (4,096 bytes by default), and the line holds the reply subject and a consumer's name too.
 */
export const SUBJECT_LIMIT = 3_800;

const PLAIN = /^[A-Za-z0-9_-]+$/;
const TOKEN = /^(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+$/;
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * One subject token for any text: what is not `A-Z a-z 0-9 _ -` is escaped as `=XX` for each byte of UTF-8.
 * @throws RangeError for an empty text or one with a lone surrogate, which UTF-8 cannot tell from others.
 */
export function encodeToken(text: string): string {
  if (PLAIN.test(text)) return text;
  if (text === '' || !text.isWellFormed()) throw new RangeError('not encodable as a subject token');
  let token = '';
  for (const byte of encoder.encode(text)) {
    const char = String.fromCharCode(byte);
    token += PLAIN.test(char) ? char : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return token;
}

/**
 * The text of a token, or undefined where the token is not exactly what {@link encodeToken} writes
 * (a foreign publisher may use any subject).
 */
export function decodeToken(token: string): string | undefined {
  if (PLAIN.test(token)) return token;
  if (!TOKEN.test(token)) return undefined;
  const bytes: number[] = [];
  for (let i = 0; i < token.length; i++) {
    if (token[i] === '=') {
      bytes.push(Number.parseInt(token.slice(i + 1, i + 3), 16));
      i += 2;
    } else {
      bytes.push(token.charCodeAt(i));
    }
  }
  try {
    const text = decoder.decode(Uint8Array.from(bytes));
    return encodeToken(text) === token ? text : undefined;
  } catch {
    return undefined;
  }
}

/** The token of a key: as {@link encodeToken}, with `-` itself escaped, null for an unkeyed event. */
export function encodeKey(key: string | null): string {
  if (key === null) return NO_KEY;
  return key === NO_KEY ? '=2D' : encodeToken(key);
}

/** The key of a token: null for an unkeyed event, undefined for what {@link encodeKey} never writes. */
export function decodeKey(token: string): string | null | undefined {
  if (token === NO_KEY) return null;
  if (token === '=2D') return NO_KEY;
  return decodeToken(token);
}

/** `<key>.<segments>`: what follows audience and scope in every subject, and names a topic in its audience. */
export function encodePath(key: string | null, segments: readonly string[]): string {
  return `${encodeKey(key)}.${segments.map(encodeToken).join('.')}`;
}

/** Key and segments of a path, or undefined where it is none of ours. */
export function decodePath(
  path: string,
): { readonly key: string | null; readonly segments: readonly string[] } | undefined {
  const [keyToken, ...tokens] = path.split('.');
  if (keyToken === undefined || tokens.length === 0) return undefined;
  const key = decodeKey(keyToken);
  if (key === undefined) return undefined;
  const segments: string[] = [];
  for (const token of tokens) {
    const segment = decodeToken(token);
    if (segment === undefined) return undefined;
    segments.push(segment);
  }
  return { key, segments };
}

/** The streams and what they hold. */
export const STREAMS = {
  global: { name: 'PH_GLOBAL', subjects: 'ph.*.global.>' },
  local: { name: 'PH_LOCAL', subjects: 'ph.*.local.>' },
  dead: { name: 'PH_DEAD', subjects: 'ph-dead.>', redrives: 'ph-redrive.>' },
} as const;

/** KV buckets: projections that their owner can rebuild from PostgreSQL, but for the last. */
export const BUCKETS = {
  /** Audiences and registered topics; owner: registry. Keys: {@link audienceKey}, {@link topicKey}. */
  topics: 'ph-topics',
  /** Revocations; owner: auth. */
  revoked: 'ph-revoked',
  /** The epoch of each stream, keyed by the stream's name; owner: registry. */
  streams: 'ph-streams',
  /** What durable consumers have claimed (libs/bus/README.md, "Repeats"); owners: they. Lost, repeats pass once. */
  consumers: 'ph-consumers',
} as const;

/**
 * The subject under which an event is stored. `path` comes from {@link encodePath} and may hold wildcards.
 * @throws ProblemError `request_invalid` over {@link SUBJECT_LIMIT}
 */
export function storedSubject(audience: string, scope: Scope, instance: string, path: string): string {
  return bounded(
    scope === 'global'
      ? `ph.${encodeToken(audience)}.global.${path}`
      : `ph.${encodeToken(audience)}.local.${encodeToken(instance)}.${path}`,
  );
}

/**
 * The subject on which the stream republishes it.
 * @throws ProblemError `request_invalid` over {@link SUBJECT_LIMIT}
 */
export function liveSubject(audience: string, scope: Scope, instance: string, path: string): string {
  return bounded(
    scope === 'global'
      ? `ph-live.${encodeToken(audience)}.${path}`
      : `ph-live-local.${encodeToken(audience)}.${encodeToken(instance)}.${path}`,
  );
}

/**
 * The subject of an ephemeral event. `path` may hold wildcards.
 * @throws ProblemError `request_invalid` over {@link SUBJECT_LIMIT}
 */
export function ephemeralSubject(audience: string, path: string): string {
  return bounded(`ph-eph.${encodeToken(audience)}.${path}`);
}

/** Takes the subject of an ephemeral event apart, or gives undefined for a subject that is none. */
export function parseEphemeralSubject(
  subject: string,
): { readonly audience: string; readonly path: string } | undefined {
  const [prefix, audienceToken = '', ...path] = subject.split('.');
  const audience = decodeToken(audienceToken);
  if (prefix !== 'ph-eph' || audience === undefined || path.length < 2) return undefined;
  return { audience, path: path.join('.') };
}

/** What a stored subject says. */
export interface StoredSubject {
  readonly audience: string;
  readonly scope: Scope;
  /** The deployment, for scope local; null for global. */
  readonly instance: string | null;
  readonly path: string;
}

/** Takes a stored subject apart, or gives undefined for a subject that is none. */
export function parseStoredSubject(subject: string): StoredSubject | undefined {
  const tokens = subject.split('.');
  const audience = decodeToken(tokens[1] ?? '');
  if (tokens[0] !== 'ph' || audience === undefined) return undefined;
  if (tokens[2] === 'global' && tokens.length >= 5) {
    return { audience, scope: 'global', instance: null, path: tokens.slice(3).join('.') };
  }
  if (tokens[2] === 'local' && tokens.length >= 6) {
    const instance = decodeToken(tokens[3] ?? '');
    if (instance === undefined) return undefined;
    return { audience, scope: 'local', instance, path: tokens.slice(4).join('.') };
  }
  return undefined;
}

/** The subject of a consumer's dead letters. */
export function deadLetterSubject(consumer: string): string {
  return `ph-dead.${encodeToken(consumer)}`;
}

/**
 * The subjects of what is given to a consumer once more: `ph-redrive.<scope>.<consumer>.>`. Consumers are told
 * apart by their stream too, where two may have one name.
 */
export function redriveFilter(scope: Scope, consumer: string): string {
  return `ph-redrive.${scope}.${encodeToken(consumer)}.>`;
}

/** The subject of one redrive: of a dead letter, for the n-th time. */
export function redriveSubject(scope: Scope, consumer: string, letter: string, n: number): string {
  return bounded(`ph-redrive.${scope}.${encodeToken(consumer)}.${encodeToken(letter)}.${n}`);
}

/** KV key of an audience in `ph-topics`. */
export function audienceKey(audience: string): string {
  return `${encodeToken(audience)}.audience`;
}

/** KV key of a registered topic in `ph-topics`. */
export function topicKey(audience: string, path: string): string {
  return `${encodeToken(audience)}.topic.${path}`;
}

/** Whether a subject filter (`*`, `>`) takes a subject, by NATS's rules. */
export function matchesFilter(filter: string, subject: string): boolean {
  const f = filter.split('.');
  const s = subject.split('.');
  for (let i = 0; i < f.length; i++) {
    if (f[i] === '>') return s.length > i;
    if (i >= s.length || (f[i] !== '*' && f[i] !== s[i])) return false;
  }
  return f.length === s.length;
}

/** Whether every subject that `inner` takes is taken by `outer` too. Both are filters. */
export function coversFilter(outer: string, inner: string): boolean {
  const o = outer.split('.');
  const n = inner.split('.');
  for (let i = 0; i < o.length; i++) {
    if (o[i] === '>') return n.length > i;
    if (i >= n.length || n[i] === '>') return false;
    if (o[i] !== '*' && o[i] !== n[i]) return false;
  }
  return o.length === n.length;
}

/** Checks an audience's or an instance's name: 1 to 100 characters of well-formed text, none of them NUL. */
export function checkName(kind: 'audience' | 'instance', name: unknown): string {
  if (typeof name !== 'string' || name === '' || exceeds(name, 100) || !isStorable(name)) {
    throw new ProblemError('request_invalid', `${kind} must be a text of 1 to 100 characters`);
  }
  return name;
}

/** Whether a text has more characters than that: code points, so that an emoji counts once. */
export function exceeds(text: string, limit: number): boolean {
  if (text.length <= limit) return false;
  return text.length > 2 * limit || [...text].length > limit;
}

/** Whether UTF-8 and PostgreSQL can carry a text: neither a lone surrogate nor NUL. */
export function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0');
}

function bounded(subject: string): string {
  if (subject.length > SUBJECT_LIMIT) {
    throw new ProblemError('request_invalid', 'The names of audience and topic are too long together');
  }
  return subject;
}

/**
 * KV keys in `ph-revoked` that may hold a revocation of a token: by its id, by its user, by its audience.
 */
export const revocationKey = {
  token: (audience: string, tokenId: string) => `${encodeToken(audience)}.token.${encodeToken(tokenId)}`,
  user: (audience: string, sub: string) => `${encodeToken(audience)}.user.${encodeToken(sub)}`,
  audience: (audience: string) => `${encodeToken(audience)}.all`,
} as const;
