import { isDeepStrictEqual } from 'node:util';
import { Inject, Injectable } from '@nestjs/common';
import {
  type CreateTopicReply,
  type CreateTopicRequest,
  checkTenantSchema,
  decodePath,
  exceedsDepth,
  ProblemError,
  parseTopic,
  type Topic,
  type TopicRecord,
  topicAt,
  topicKey,
} from '@posthorn/contracts';
import { withTransaction } from '@posthorn/database';
import { DataSource, type EntityManager } from 'typeorm';
import { audienceOf } from './audiences.js';
import { Audience, RegisteredTopic } from './entities.js';
import { Projection } from './projection.js';
import { topicRecord } from './records.js';

/** Injection token of the number of topics that one audience may register. */
export const TOPICS_PER_AUDIENCE = Symbol('TOPICS_PER_AUDIENCE');

/** PostgreSQL indexes values of up to 2,700 bytes; only room events with long foreign names come near. */
const PATH_BYTES = 2_048;

/** A page has to fit the reply: NATS takes 1 MiB unless configured otherwise. */
const LIST_PAGE = { topics: 500, bytes: 512 * 1024 } as const;

/** What a registration says of a topic beside its name. */
type Properties = Pick<RegisteredTopic, 'schema' | 'retention' | 'durable'>;

/** The registered topics of each audience. */
@Injectable()
export class Topics {
  constructor(
    private readonly source: DataSource,
    private readonly projection: Projection,
    @Inject(TOPICS_PER_AUDIENCE) private readonly limit: number,
  ) {}

  /**
   * Registers a topic, or finds it unchanged. A call without schema, retention and durable finds it whatever
   * it was registered with; with any of them it has to say all that was registered.
   *
   * @throws ProblemError `audience_not_found`; `request_invalid` for a name or schema that cannot be one;
   *   `topic_conflict` when it is registered, or in the catalogue, under another name or with other
   *   properties; `forbidden` when the audience has as many topics as it may
   */
  async create(request: CreateTopicRequest): Promise<CreateTopicReply> {
    const { manager } = this.source;
    const audience = await audienceOf(manager, request.audience);
    const topic = parseRegistrable(request.topic);
    const given = propertiesOf(request);
    checkCatalogue(topic, given);
    const found = await findTopic(manager, audience.id, topic.path);
    if (found) return existing(audience, found, topic, given);
    const reply = await withTransaction(this.source, (tx) => this.insert(tx, audience, topic, given));
    if (reply.created) await this.projection.put(topicKey(audience.name, topic.path), reply.topic);
    return reply;
  }

  /**
   * The audience's topics, oldest first, as many as fit a page.
   * @param after the id of the last topic of the page before
   * @throws ProblemError `audience_not_found`
   */
  async list(audienceName: string, after?: string): Promise<TopicRecord[]> {
    const audience = await audienceOf(this.source.manager, audienceName);
    const query = this.source
      .getRepository(RegisteredTopic)
      .createQueryBuilder('topic')
      .where('topic.audience_id = :audience', { audience: audience.id })
      .orderBy('topic.created_at')
      .addOrderBy('topic.id')
      .limit(LIST_PAGE.topics);
    if (after !== undefined) {
      const last = 'SELECT last.created_at, last.id FROM topic last WHERE last.id = :after';
      query.andWhere(`(topic.created_at, topic.id) > (${last})`, { after });
    }
    const page: TopicRecord[] = [];
    let bytes = 0;
    for (const topic of await query.getMany()) {
      const record = topicRecord(audience.name, topic);
      bytes += Buffer.byteLength(JSON.stringify(record));
      if (page.length > 0 && bytes > LIST_PAGE.bytes) break;
      page.push(record);
    }
    return page;
  }

  /** The topic at a path, or null. */
  async find(audience: { id: string; name: string }, path: string): Promise<TopicRecord | null> {
    if (!decodePath(path)) return null;
    const topic = await findTopic(this.source.manager, audience.id, path);
    return topic && topicRecord(audience.name, topic);
  }

  private async insert(
    tx: EntityManager,
    audience: Audience,
    topic: Topic,
    given: Properties | undefined,
  ): Promise<CreateTopicReply> {
    // One at a time in each audience: the limit holds, and of several that ask at once one is told `created`.
    await tx.findOneOrFail(Audience, {
      where: { id: audience.id },
      lock: { mode: 'for_no_key_update' },
    });
    const found = await findTopic(tx, audience.id, topic.path);
    if (found) return existing(audience, found, topic, given);
    if ((await tx.countBy(RegisteredTopic, { audienceId: audience.id })) >= this.limit) throw this.tooMany();
    const { path, name } = topic;
    await tx.insert(RegisteredTopic, { audienceId: audience.id, name, path, ...(given ?? BARE) });
    const inserted = await tx.findOneByOrFail(RegisteredTopic, { audienceId: audience.id, path });
    return { created: true, topic: topicRecord(audience.name, inserted) };
  }

  /** Not `rate_limited`, which callers answer by trying again: time alone does not mend it. */
  private tooMany(): ProblemError {
    return new ProblemError('forbidden', `The audience has registered ${this.limit} topics, its limit`);
  }
}

/** What a topic registered with its name alone is. */
const BARE: Properties = { schema: null, retention: null, durable: true };

function findTopic(manager: EntityManager, audienceId: string, path: string) {
  return manager.findOneBy(RegisteredTopic, { audienceId, path });
}

/** The topic of a name that may be registered. */
function parseRegistrable(name: string): Topic {
  const topic = parseTopic(name);
  if (name.includes('\0')) throw invalid('holds a null character');
  if (topic.path.length > PATH_BYTES) throw invalid('is too long to be registered');
  // Its name would be in every list of topics.
  if (topic.entry?.parameter?.secret) throw invalid('holds a secret, and is used without being registered');
  return topic;
}

/** What a call says of the topic; undefined where it gives the name alone. */
function propertiesOf({ schema, retention, durable }: CreateTopicRequest): Properties | undefined {
  if ((schema ?? retention ?? durable ?? null) === null) return undefined;
  return {
    schema: schema ? parseSchema(schema) : null,
    retention: retention ?? null,
    durable: durable ?? true,
  };
}

/** The schema as it will be read back: what JSON does not keep (-0, a number beyond all limits) is gone. */
function parseSchema(given: Record<string, unknown>): Record<string, unknown> {
  const schema = exceedsDepth(given) ? given : JSON.parse(JSON.stringify(given));
  const findings = checkTenantSchema(schema);
  if (findings.length === 0) return schema;
  throw new ProblemError('request_invalid', 'The schema cannot be used', {
    errors: findings.map(({ path, message }) => ({ path: `/schema${path}`, message })),
  });
}

/** A topic of the catalogue has the catalogue's name and properties, in every audience. */
function checkCatalogue(topic: Topic, given: Properties | undefined): void {
  if (!topic.entry) return;
  const name = topicAt(topic.path)?.name ?? topic.entry.name;
  if (topic.name !== name) throw otherName(topic.name, name);
  if (given) {
    throw new ProblemError(
      'topic_conflict',
      `${name} is a documented topic: its schema, retention and durability are fixed, leave them out`,
    );
  }
}

function existing(
  audience: Audience,
  registered: RegisteredTopic,
  topic: Topic,
  given: Properties | undefined,
): CreateTopicReply {
  if (registered.name !== topic.name) throw otherName(topic.name, registered.name);
  const differing = (['schema', 'retention', 'durable'] as const).filter(
    (property) => given && !isDeepStrictEqual(registered[property], given[property]),
  );
  if (differing.length > 0) {
    const findings = differing.map((property) => ({
      path: `/${property}`,
      message: registered[property] === null ? 'was not registered' : 'is not what was registered',
    }));
    throw new ProblemError(
      'topic_conflict',
      `${topic.name} is registered with another ${differing.join(', ')}`,
      { errors: findings },
    );
  }
  return { created: false, topic: topicRecord(audience.name, registered) };
}

function otherName(asked: string, registered: string): ProblemError {
  return new ProblemError('topic_conflict', `${asked} is the same topic as ${registered}: use that name`);
}

function invalid(what: string): ProblemError {
  return new ProblemError('request_invalid', `The topic ${what}`, {
    errors: [{ path: '/topic', message: what }],
  });
}
