/** Crashes in the middle of the stream, and the set of notifications that must be there afterwards. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import type { PubSub } from '@posthorn/bus';
import type { InboxUpdate, PayloadOf, TopicName, UserNotification } from '@posthorn/contracts';
import { startCluster, type TestCluster } from '@posthorn/testing';
import pg from 'pg';
import { createTenant, eventually } from './support/tenant.js';

/** How often each of the three is killed. */
const KILLS = 10;
/** Events that are accepted between two kills, at the least. */
const BETWEEN = 150;
const LANES = 2;
const BURST = 30;
const PAUSE_MS = 50;
const MANAGERS = ['mia', 'max'];

interface Event {
  readonly id: string;
  readonly topic: TopicName;
  readonly payload: PayloadOf<TopicName>;
  /** Who is to be notified. */
  readonly recipients: readonly string[];
  /** The id of the invite that this event takes back. */
  readonly takesBack?: string;
}

/** The n-th event of a lane. Each invite with n % 7 = 2 is taken back three events later. */
function eventOf(lane: number, n: number): Event {
  const id = `${lane}-${n}`;
  const user = (k: number) => `user ${lane}/${k % 40}`;
  const about = { author: user(n), target: user(n + 1), community: `c${lane}/${n}` };
  switch (n % 7) {
    case 0:
      return {
        id,
        topic: 'community:join',
        payload: { ...about, managers: MANAGERS },
        recipients: MANAGERS,
      };
    case 1:
      return {
        id,
        topic: 'community:join',
        payload: { ...about, actor: 'manager' },
        recipients: [about.target],
      };
    case 2:
    case 6:
      return { id, topic: 'community:membership:invite', payload: about, recipients: [about.target] };
    case 3:
      return { id, topic: 'community:membership:request:refuse', payload: about, recipients: [about.target] };
    case 4: {
      const target = [user(n), user(n + 1), user(n + 2)];
      return {
        id,
        topic: 'notification:external',
        payload: { target, action: 'shared' },
        recipients: target,
      };
    }
    default: {
      const invite = eventOf(lane, n - 3);
      const payload = { ...(invite.payload as object), author: 'mia' } as PayloadOf<'community:leave'>;
      return {
        id,
        topic: 'community:membership:invitation:cancel',
        payload,
        recipients: [],
        takesBack: invite.id,
      };
    }
  }
}

/** Publishes bursts until stopped; each event is tried until it is accepted, under one id. */
class EventStream implements AsyncDisposable {
  readonly accepted: Event[] = [];
  readonly #pubsub: PubSub;
  readonly #publishing = new Map<string, Promise<void>>();
  #stopped = false;
  readonly #running: Promise<unknown>;

  constructor(pubsub: PubSub) {
    this.#pubsub = pubsub;
    this.#running = Promise.all(Array.from({ length: LANES }, (_, lane) => this.#run(lane)));
  }

  /** Resolves once so many more were accepted. */
  async more(count: number): Promise<void> {
    const goal = this.accepted.length + count;
    await eventually(async () => this.accepted.length >= goal || undefined, 60_000);
  }

  async stop(): Promise<readonly Event[]> {
    this.#stopped = true;
    await this.#running;
    return this.accepted;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(lane: number): Promise<void> {
    for (let n = 0; !this.#stopped; n += BURST) {
      await Promise.all(Array.from({ length: BURST }, (_, i) => this.#inOrder(eventOf(lane, n + i))));
      await sleep(PAUSE_MS);
    }
  }

  /** An invite is stored before its cancel goes out: the other way round it would stay open. */
  #inOrder(event: Event): Promise<void> {
    const invite = event.takesBack && this.#publishing.get(event.takesBack);
    this.#publishing.delete(event.takesBack ?? '');
    const publishing = invite ? invite.then(() => this.#publish(event)) : this.#publish(event);
    if (event.topic === 'community:membership:invite') this.#publishing.set(event.id, publishing);
    return publishing;
  }

  async #publish(event: Event): Promise<void> {
    while (!this.#stopped) {
      const accepted = await this.#pubsub.local
        .topic(event.topic)
        .publish(event.payload, { id: event.id })
        .catch(() => undefined);
      if (accepted) {
        this.accepted.push(event);
        return;
      }
      await sleep(PAUSE_MS);
    }
  }
}

interface Row {
  readonly id: string;
  readonly event_id: string;
  readonly target: string;
  readonly withdrawn: boolean;
  readonly emitted: boolean;
}

describe('kill -9 of the worker, of PostgreSQL and of NATS in mid-stream', () => {
  let cluster: TestCluster;

  beforeAll(async () => {
    cluster = await startCluster({ env: { ACK_WAIT: '1s' } });
  }, 90_000);
  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]();
  });

  /** Asks the database anew each time: it is not always the same server. */
  async function query<R>(sql: string): Promise<R[]> {
    const client = new pg.Client(cluster.databaseUrl);
    // The server may be killed while this connection ends.
    client.on('error', () => {});
    await client.connect();
    try {
      return (await client.query(sql)).rows as R[];
    } finally {
      await client.end().catch(() => {});
    }
  }
  const written = async () => {
    const [row] = await query<{ count: number }>('SELECT count(*)::int AS count FROM notifier.notification');
    return row!.count;
  };
  /** Resolves while notifications are being written. */
  const midStream = async () => {
    const before = await written();
    await eventually(async () => (await written()) > before || undefined, 120_000);
  };

  /** Events that were delivered and not acknowledged. */
  async function inWork(): Promise<number> {
    const nc = await connect({ servers: cluster.natsUrl });
    try {
      const info = await (await jetstreamManager(nc)).consumers.info('PH_LOCAL', 'notifier-main');
      return info.num_ack_pending;
    } finally {
      await nc.close();
    }
  }

  /** Everything that users were told, off the stream. */
  async function told(): Promise<
    { id: string; created: boolean; message: UserNotification & InboxUpdate }[]
  > {
    const nc = await connect({ servers: cluster.natsUrl });
    try {
      const { state } = await (await jetstreamManager(nc)).streams.info('PH_GLOBAL');
      const consumer = await jetstream(nc).consumers.get('PH_GLOBAL');
      const all = [];
      for await (const message of await consumer.consume()) {
        const created = message.subject.endsWith('.usernotification.created');
        if (created || message.subject.endsWith('.usernotification.updated')) {
          all.push({ id: message.headers!.get('ce-id'), created, message: message.json<never>() });
        }
        if (message.seq >= state.last_seq) break;
      }
      return all;
    } finally {
      await nc.close();
    }
  }

  it('leaves exactly the notifications that the events make, ten kills of each later', async () => {
    const tenant = await createTenant(cluster, 'acme');
    await using pubsub = Object.assign(tenant.pubsub(), {
      async [Symbol.asyncDispose]() {
        await pubsub.close();
      },
    });
    await pubsub.ready;
    await using stream = new EventStream(pubsub);
    const victims = { worker: cluster.app('notifier'), postgres: cluster.postgres, nats: cluster.nats };
    let caughtAtWork = 0;
    for (let round = 0; round < KILLS; round++) {
      for (const victim of Object.values(victims)) {
        await stream.more(BETWEEN);
        await midStream();
        await victim.kill();
        if (victim === victims.worker && (await inWork()) > 0) caughtAtWork += 1;
        await sleep(round * 20);
        await victim.start();
      }
    }
    await stream.more(BETWEEN);
    const events = await stream.stop();
    expect(caughtAtWork).toBeGreaterThan(KILLS / 2);

    const expected = events
      .flatMap(({ id, recipients }) => recipients.map((target) => `${id} ${target}`))
      .sort();
    const rows = await eventually(async () => {
      const found = await query<Row>(
        'SELECT id, event_id, target, withdrawn, emitted_at IS NOT NULL AS emitted FROM notifier.notification',
      );
      const done = found.length >= expected.length && found.every(({ emitted }) => emitted);
      return done ? found : undefined;
    }, 60_000);
    expect(rows.map(({ event_id, target }) => `${event_id} ${target}`).sort()).toEqual(expected);

    const accepted = new Set(events.map(({ id }) => id));
    const takenBack = new Set(
      events.flatMap(({ takesBack }) => (takesBack && accepted.has(takesBack) ? [takesBack] : [])),
    );
    const isWithdrawn = await eventually(async () => {
      const found = await query<Row>('SELECT event_id FROM notifier.notification WHERE withdrawn');
      return found.length >= takenBack.size ? found.map(({ event_id }) => event_id).sort() : undefined;
    }, 60_000);
    expect(isWithdrawn).toEqual([...takenBack].sort());

    const wrong = await query(
      `SELECT i.user_id, i.unread_count, count(n.id)::int AS counted
       FROM notifier.inbox i
       LEFT JOIN notifier.notification n ON n.audience = i.audience AND n.target = i.user_id
         AND NOT n.read AND NOT n.acknowledged AND NOT n.withdrawn
       GROUP BY i.audience, i.user_id HAVING count(n.id) <> i.unread_count`,
    );
    expect(wrong).toEqual([]);

    // What could not be told at once is told by the relay.
    await eventually(async () => {
      const [open] = await query<{ count: number }>(
        'SELECT count(*)::int AS count FROM notifier.inbox_update',
      );
      return open?.count === 0 || undefined;
    }, 60_000);
    const all = await told();
    const known = new Map(rows.map((row) => [row.id, row]));
    const first = new Map<string, UserNotification>();
    for (const { id, created, message } of all) {
      if (!created) continue;
      expect(message.id).toBe(id);
      expect(known.get(id)?.target).toBe(message.target);
      // A repeat is the same notification under the same id, word for word.
      expect(message).toEqual(first.get(id) ?? message);
      first.set(id, message);
    }
    const open = rows.filter(({ event_id }) => !takenBack.has(event_id)).map(({ id }) => id);
    expect(open.filter((id) => !first.has(id))).toEqual([]);
    // Who heard of an invite that was taken back has heard that, too.
    const withdrawn = new Set(
      all.filter(({ created }) => !created).map(({ message }) => message.notification?.id),
    );
    const heard = rows.filter(({ id, event_id }) => takenBack.has(event_id) && first.has(id));
    expect(heard.filter(({ id }) => !withdrawn.has(id))).toEqual([]);
    expect(heard.length).toBeGreaterThan(0);
  }, 300_000);
});
