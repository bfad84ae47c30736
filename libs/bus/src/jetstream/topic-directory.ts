/**
 * What this process knows of audiences and registered topics: a live copy of the bucket `ph-topics`, and the
 * registry for what the copy does not hold yet.
 *
 * Losing the bucket or the registry keeps the last copy.
 */
import type { KvEntry } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import {
  type AudienceRecord,
  audienceKey,
  BUCKETS,
  checkForCatalogue,
  compileTenantSchema,
  encodeToken,
  type Finding,
  type LookupReply,
  type LookupRequest,
  type PayloadCheck,
  ProblemError,
  type Topic,
  type TopicRecord,
  topicKey,
} from '@posthorn/contracts';
import { type BucketFollower, followBucket } from './bucket.js';

/** Asks the registry; rejects with `unavailable` when it cannot be reached. */
export type Lookup = (request: LookupRequest) => Promise<LookupReply>;

/** How long a topic that the registry does not know stays unasked for, in milliseconds. */
const NO_TOPIC_FOR = 60_000;
/** The same for an audience: short, since people create one and use it at once. */
const NO_AUDIENCE_FOR = 2_000;
const MAX_REMEMBERED = 20_000;

interface Registered {
  readonly record: TopicRecord;
  /** Compiled on first use. */
  check: PayloadCheck | undefined;
}

export class TopicDirectory {
  readonly #audiences = new Map<string, AudienceRecord>();
  readonly #topics = new Map<string, Registered>();
  /** KV key → until when a "no" of the registry is believed. */
  readonly #unknown = new Map<string, number>();
  readonly #lookup: Lookup;
  #follower: BucketFollower | undefined;

  constructor(lookup: Lookup) {
    this.#lookup = lookup;
  }

  /**
   * Follows the bucket; resolves once everything it holds now was read. Waits for the bucket to exist.
   * @param audience only this audience's part; null: everything
   */
  follow(nc: NatsConnection, audience: string | null): Promise<void> {
    const filter = audience === null ? '>' : `${encodeToken(audience)}.>`;
    this.#follower = followBucket(nc, BUCKETS.topics, filter, (entry) => this.#apply(entry));
    return this.#follower.ready;
  }

  /** Stops following; the copy stays readable. */
  close(): void {
    this.#follower?.close();
  }

  /**
   * The audience of a name.
   * @throws ProblemError `audience_not_found`, or `unavailable` where nobody could be asked
   */
  async audience(name: string): Promise<AudienceRecord> {
    const key = audienceKey(name);
    const known = this.#audiences.get(key);
    if (known) return known;
    const reply = this.#isUnknown(key) ? undefined : await this.#lookup({ audience: name });
    if (reply?.audience) {
      this.rememberAudience(reply.audience);
      return reply.audience;
    }
    if (reply) this.#rememberUnknown(key, NO_AUDIENCE_FOR);
    throw new ProblemError('audience_not_found', 'The audience does not exist: POST /v1/audience creates it');
  }

  /** Whether the audience is in the copy: then {@link audience} needs no asking. */
  knowsAudience(name: string): boolean {
    return this.#audiences.has(audienceKey(name));
  }

  /**
   * The registration of a topic, undefined for one that needs none. Asks the registry once for what the copy
   * does not hold; with the registry away the copy decides.
   */
  registration(topic: Topic, audience: string): TopicRecord | undefined | Promise<TopicRecord | undefined> {
    const key = topicKey(audience, topic.path);
    const known = this.#topics.get(key);
    if (known) return known.record;
    if (topic.entry || this.#isUnknown(key)) return undefined;
    return this.#ask(audience, topic.path, key);
  }

  /** The registration in the copy, for edges that cannot wait. */
  cached(audience: string, path: string): TopicRecord | undefined {
    return this.#topics.get(topicKey(audience, path))?.record;
  }

  /** What is wrong with a payload by its topic's schema: the catalogue's, or the registered one. */
  check(topic: Topic, audience: string, message: unknown): readonly Finding[] {
    if (topic.entry) return checkForCatalogue(topic.entry.name)(message);
    const registered = this.#topics.get(topicKey(audience, topic.path));
    if (!registered?.record.schema) return [];
    registered.check ??= compileTenantSchema(registered.record.schema);
    return registered.check(message);
  }

  /** Takes note of what a call to the registry has just answered, ahead of the bucket. */
  rememberAudience(record: AudienceRecord): void {
    const key = audienceKey(record.name);
    this.#audiences.set(key, record);
    this.#unknown.delete(key);
  }

  /** As {@link rememberAudience}. */
  rememberTopic(record: TopicRecord): void {
    const key = topicKey(record.audience, record.path);
    this.#topics.set(key, { record, check: undefined });
    this.#unknown.delete(key);
  }

  async #ask(audience: string, path: string, key: string): Promise<TopicRecord | undefined> {
    let reply: LookupReply;
    try {
      reply = await this.#lookup({ audience, path });
    } catch {
      return undefined;
    }
    if (!reply.topic) {
      this.#rememberUnknown(key, NO_TOPIC_FOR);
      return undefined;
    }
    this.rememberTopic(reply.topic);
    return reply.topic;
  }

  #apply(entry: KvEntry): void {
    if (entry.operation !== 'PUT') {
      this.#audiences.delete(entry.key);
      this.#topics.delete(entry.key);
      return;
    }
    this.#unknown.delete(entry.key);
    if (entry.key.endsWith('.audience') && entry.key.split('.').length === 2) {
      this.#audiences.set(entry.key, entry.json<AudienceRecord>());
    } else {
      this.#topics.set(entry.key, { record: entry.json<TopicRecord>(), check: undefined });
    }
  }

  #isUnknown(key: string): boolean {
    const until = this.#unknown.get(key);
    return until !== undefined && until > Date.now();
  }

  #rememberUnknown(key: string, duration: number): void {
    if (this.#unknown.size >= MAX_REMEMBERED) {
      // The oldest goes first: a Map keeps the order of insertion.
      this.#unknown.delete(this.#unknown.keys().next().value!);
    }
    this.#unknown.delete(key);
    this.#unknown.set(key, Date.now() + duration);
  }
}
