/** What the notifier's specs share: real servers, replicas in this process, and looks at what they left. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { headers, type MsgHdrs } from '@nats-io/transport-node';
import { connectPubSub, type PubSub } from '@posthorn/bus';
import { type DeadLetter, readDeadLetter } from '@posthorn/bus/platform';
import {
  COMMUNITY_CALLS,
  HEADER,
  INBOX_CALLS,
  type InboxUpdate,
  type ListNotificationsRequest,
  type NotificationPage,
  parseStoredSubject,
  parseTopic,
  type SetCommunityReply,
  STREAMS,
  storedSubject,
  type UserNotification,
} from '@posthorn/contracts';
import { isConflict } from '@posthorn/database';
import {
  connectNats,
  createLogger,
  Health,
  Metrics,
  type NatsLink,
  RpcClient,
  type Service,
  Shutdown,
  waitFor,
} from '@posthorn/service';
import { createDatabase, prepareBus, startNats, type TestNats } from '@posthorn/testing';
import pg from 'pg';
import { readNotifierConfig } from '../src/config.js';
import { startNotifier } from '../src/notifier.js';

export const CONSUMER = 'notifier-main';

/** One notifier in this process. */
export interface Replica extends Service {
  /** Resolves when it handles events and answers calls. */
  readonly started: Promise<void>;
  /** The lines of its log. */
  readonly lines: readonly Record<string, unknown>[];
  stop(): Promise<void>;
}

/** An event on the global stream that told a user something. */
export interface Told {
  readonly audience: string;
  readonly topic: 'usernotification:created' | 'usernotification:updated';
  readonly id: string;
  readonly traceparent: string | undefined;
  readonly message: UserNotification & InboxUpdate;
}

/** What a foreign publisher may send: any bytes, any headers, any subject. */
export interface RawEvent {
  readonly audience?: string;
  readonly id?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export class Environment implements AsyncDisposable {
  readonly #ends: (() => unknown)[] = [];
  readonly #pubsubs = new Map<string, PubSub>();
  nats!: TestNats;
  databaseUrl!: string;
  link!: NatsLink;
  jsm!: JetStreamManager;
  rpc!: RpcClient;
  #client!: pg.Client;

  async open(audiences: readonly string[], prepared: boolean): Promise<this> {
    this.nats = await startNats();
    this.#ends.push(() => this.nats[Symbol.asyncDispose]());
    if (prepared) await prepareBus(this.nats, { audiences });
    const database = await createDatabase();
    this.#ends.push(() => database[Symbol.asyncDispose]());
    this.databaseUrl = database.url;
    this.#client = new pg.Client(database.url);
    await this.#client.connect();
    this.#ends.push(() => this.#client.end());
    const logger = createLogger({ app: 'spec', level: 'silent' });
    this.link = await connectNats({ url: this.nats.url, name: 'spec', logger, health: new Health() });
    this.#ends.push(() => this.link.close());
    this.jsm = await jetstreamManager(this.link.connection);
    this.rpc = new RpcClient(this.link);
    return this;
  }

  /** A notifier; it ends with the environment. Wait for `started`, unless it cannot come up. */
  replica(env: Readonly<Record<string, string>> = {}): Replica {
    const lines: Record<string, unknown>[] = [];
    const logger = createLogger({
      app: 'notifier',
      level: 'info',
      destination: { write: (line) => lines.push(JSON.parse(line)) },
    });
    const health = new Health();
    const shutdown = new Shutdown({ logger, health, exit: () => {} });
    const service: Service = {
      app: 'notifier',
      instance: 'main',
      logger,
      metrics: new Metrics('notifier'),
      health,
      shutdown,
      waitFor: (name, attempt) => waitFor(name, attempt, { health, logger, signal: shutdown.signal }),
    };
    const config = readNotifierConfig({ NATS_URL: this.nats.url, DATABASE_URL: this.databaseUrl, ...env });
    const started = startNotifier(service, config);
    started.catch(() => {});
    const stop = () => shutdown.run('the test is over');
    this.#ends.push(stop);
    return { ...service, started, lines, stop };
  }

  /** The SDK as another service uses it. */
  pubsub(audience = 'acme'): PubSub {
    const known = this.#pubsubs.get(audience);
    if (known) return known;
    const pubsub = connectPubSub({
      servers: this.nats.url,
      audience,
      source: 'spec',
      connectTimeout: 60_000,
    });
    this.#ends.push(() => pubsub.close());
    this.#pubsubs.set(audience, pubsub);
    return pubsub;
  }

  /** Stores an event as a publisher without our SDK does. */
  async publishRaw(topic: string, payload: string | Uint8Array, event: RawEvent = {}): Promise<void> {
    const { audience = 'acme', id, headers: extra = {} } = event;
    const set: MsgHdrs = headers();
    if (id !== undefined) set.set(HEADER.id, id);
    for (const [name, value] of Object.entries(extra)) set.set(name, value);
    const subject = storedSubject(audience, 'local', 'main', parseTopic(topic).path);
    await jetstream(this.link.connection).publish(subject, payload, { headers: set });
  }

  /** Resolves when a consumer has handled every event that is stored now, or has made it a dead letter. */
  async settled(consumer = CONSUMER): Promise<void> {
    for (;;) {
      const { num_pending, num_ack_pending } = await this.jsm.consumers.info(STREAMS.local.name, consumer);
      if (num_pending === 0 && num_ack_pending === 0) return;
      await sleep(10);
    }
  }

  /** What users were told so far, in the order of the stream. */
  async told(): Promise<Told[]> {
    const told: Told[] = [];
    for await (const { subject, header, data } of this.#messages(STREAMS.global.name)) {
      const { audience = '', path = '' } = parseStoredSubject(subject) ?? {};
      if (!path.includes('.usernotification.')) continue;
      told.push({
        audience,
        topic: path.endsWith('.created') ? 'usernotification:created' : 'usernotification:updated',
        id: header.last(HEADER.id),
        traceparent: header.last(HEADER.traceparent) || undefined,
        message: JSON.parse(new TextDecoder().decode(data)),
      });
    }
    return told;
  }

  /** The notifications that users were told of as new. */
  async created(): Promise<UserNotification[]> {
    const told = await this.told();
    return told.filter(({ topic }) => topic === 'usernotification:created').map(({ message }) => message);
  }

  /** The events that a consumer gave up. */
  async deadLetters(consumer = CONSUMER): Promise<DeadLetter[]> {
    const letters: DeadLetter[] = [];
    for await (const { header, data } of this.#messages(STREAMS.dead.name)) {
      const letter = readDeadLetter(header, data);
      if (letter?.consumer === consumer) letters.push(letter);
    }
    return letters;
  }

  list(user: string, request: Partial<ListNotificationsRequest> = {}): Promise<NotificationPage> {
    return this.rpc.call(INBOX_CALLS.listNotifications, { audience: 'acme', user, limit: 20, ...request });
  }

  setManagers(community: string, users: readonly string[], audience = 'acme'): Promise<SetCommunityReply> {
    return this.rpc.call(COMMUNITY_CALLS.setManagers, { audience, community, users });
  }

  setMembers(community: string, users: readonly string[], audience = 'acme'): Promise<SetCommunityReply> {
    return this.rpc.call(COMMUNITY_CALLS.setMembers, { audience, community, users });
  }

  /** Rows of the notifier's schema. */
  async query<Row>(sql: string, values: unknown[] = []): Promise<Row[]> {
    const { rows } = await this.#client.query(sql, values);
    return rows as Row[];
  }

  /** Empties what a test may have left, for those that share an environment. */
  async clear(): Promise<void> {
    for (const { name } of Object.values(STREAMS)) await this.jsm.streams.purge(name);
    const truncate =
      'TRUNCATE notifier.notification, notifier.inbox, notifier.invitation, notifier.inbox_update, ' +
      'notifier.community, notifier.community_member, ' +
      'notifier.activity, notifier.timeline_entry, notifier.timeline_seen, notifier.dead_letter';
    // What a replica still writes may hold one of these tables and want another: PostgreSQL then ends one of the two.
    for (let done = false; !done; ) {
      done = await this.query(truncate).then(
        () => true,
        (error: unknown) => {
          if (!isConflict(error)) throw error;
          return false;
        },
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.#ends.reverse()) await end();
  }

  async *#messages(stream: string): AsyncGenerator<{ subject: string; header: MsgHdrs; data: Uint8Array }> {
    const { state } = await this.jsm.streams.info(stream);
    for (let seq = state.first_seq; seq <= state.last_seq && state.messages > 0; seq++) {
      const message = await this.jsm.streams.getMessage(stream, { seq });
      if (message) yield message;
    }
  }
}

/** @param prepared whether the streams are there, as the registry leaves them */
export function startEnvironment(
  audiences: readonly string[] = ['acme', 'globex'],
  { prepared = true }: { prepared?: boolean } = {},
): Promise<Environment> {
  return new Environment().open(audiences, prepared);
}
