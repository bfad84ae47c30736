/**
 * What this process knows of audiences and registered topics: a live copy of the bucket `ph-topics`, and the
 * registry for what the copy does not hold yet.
 *
 * Losing the bucket or the registry keeps the last copy.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import {
  type AudienceRecord,
  audienceKey,
  BUCKETS,
  checkAgreement,
  checkForCatalogue,
  compileTenantSchema,
  encodeToken,
  type Finding,
  type LookupReply,
  type LookupRequest,
  matchesFilter,
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
/** The same for an audience, and for a registry that does not answer: short, since people create and use at once. */
const NO_AUDIENCE_FOR = 2_000;
const MAX_REMEMBERED = 20_000;

const utf8 = new TextDecoder();

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
  /** KV key → the question that is on its way. */
  readonly #asking = new Map<string, Promise<LookupReply>>();
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
    this.#follower = followBucket(nc, BUCKETS.topics, filter, (key, value) => this.#apply(key, value));
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
    const reply = this.#isUnknown(key) ? undefined : await this.#ask(key, { audience: name });
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
    return this.#askForTopic(audience, topic.path, key);
  }

  /**
   * What has to be asked before an event may be published on a topic: undefined where the copy says enough.
   * @throws ProblemError as {@link audience}, in the promise
   */
  admission(audience: string, topic: Topic): Promise<unknown> | undefined {
    const registration = this.registration(topic, audience);
    if (!this.knowsAudience(audience)) return Promise.all([this.audience(audience), registration]);
    return registration instanceof Promise ? registration : undefined;
  }

  /** The registration in the copy, for edges that cannot wait. */
  cached(audience: string, path: string): TopicRecord | undefined {
    return this.#topics.get(topicKey(audience, path))?.record;
  }

  /** Whether the copy has a topic as ephemeral, for edges that cannot wait. */
  isEphemeral(audience: string, path: string): boolean {
    return this.cached(audience, path)?.durable === false;
  }

  /**
   * The shortest retention of the topics that a path filter takes, in seconds; undefined where none has one.
   * Of the copy alone: a topic that it does not hold is kept as long as its stream keeps it.
   */
  retention(audience: string, filter: string): number | undefined {
    if (!/[*>]/.test(filter)) return this.cached(audience, filter)?.retention;
    let shortest: number | undefined;
    for (const { record } of this.#topics.values()) {
      if (record.retention === undefined || record.audience !== audience) continue;
      if (record.retention >= (shortest ?? Number.POSITIVE_INFINITY)) continue;
      if (matchesFilter(filter, record.path)) shortest = record.retention;
    }
    return shortest;
  }

  /** What is wrong with a payload by its topic's schema: the catalogue's, or the registered one. */
  check(topic: Topic, audience: string, message: unknown): readonly Finding[] {
    if (topic.entry) {
      const findings = checkForCatalogue(topic.entry.name)(message);
      return findings.length > 0 ? findings : checkAgreement(topic, message);
    }
    const registered = this.#topics.get(topicKey(audience, topic.path));
    if (!registered?.record.schema) return [];
    registered.check ??= compile(registered.record.schema);
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

  async #askForTopic(audience: string, path: string, key: string): Promise<TopicRecord | undefined> {
    let reply: LookupReply;
    try {
      reply = await this.#ask(key, { audience, path });
    } catch {
      this.#rememberUnknown(key, NO_AUDIENCE_FOR);
      return undefined;
    }
    if (!reply.topic) {
      this.#rememberUnknown(key, NO_TOPIC_FOR);
      return undefined;
    }
    this.rememberTopic(reply.topic);
    return reply.topic;
  }

  /** One question for all who want to know the same at the same time. */
  #ask(key: string, request: LookupRequest): Promise<LookupReply> {
    let question = this.#asking.get(key);
    if (!question) {
      question = this.#lookup(request).finally(() => this.#asking.delete(key));
      this.#asking.set(key, question);
    }
    return question;
  }

  #apply(key: string, value: Uint8Array | undefined): void {
    if (!value) {
      this.#audiences.delete(key);
      this.#topics.delete(key);
      return;
    }
    const record = JSON.parse(utf8.decode(value));
    // A record stands under its own key; an answer of JetStream that was directed here stands under any.
    if (key.endsWith('.audience') && key.split('.').length === 2) {
      if (audienceKey((record as AudienceRecord).name) !== key) return;
      this.#audiences.set(key, record as AudienceRecord);
    } else {
      const { audience, path } = record as TopicRecord;
      if (topicKey(audience, path) !== key) return;
      this.#topics.set(key, { record: record as TopicRecord, check: undefined });
    }
    this.#unknown.delete(key);
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

/** A schema that a newer registry took and this process cannot read lets nothing pass. */
function compile(schema: Record<string, unknown>): PayloadCheck {
  try {
    return compileTenantSchema(schema);
  } catch {
    const findings: readonly Finding[] = [{ path: '', message: 'cannot be checked by this version' }];
    return () => findings;
  }
}
