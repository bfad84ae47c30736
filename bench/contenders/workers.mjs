/** Workers that turn community events into notifications: ours, and one of a few lines in its place. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AckPolicy, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import pg from 'pg';
import { GuardedProcess } from '../../tools/embedded/process.mjs';
import { managersOf, notificationsOf } from '../community-events.mjs';
import { treeCpuSeconds } from '../proc.mjs';
import { AUDIENCE, Posthorn } from './posthorn.mjs';

const STREAM = 'PH_LOCAL';
const CREATED = `ph.${AUDIENCE}.global.*.usernotification.created`;
const oneByOneProgram = fileURLToPath(new URL('one-by-one-worker.mjs', import.meta.url));

/** An installation whose worker can be stopped while events are stored. */
class WorkerServer extends Posthorn {
  consumer = 'notifier-main';

  /** @param {import('../contender.mjs').Place} place */
  constructor(place) {
    super(place, { synced: true, profiled: 'notifier' });
  }

  get natsUrl() {
    return this.nats?.url ?? '';
  }

  databaseCpuSeconds() {
    return treeCpuSeconds(this.postgres.pid ?? 0);
  }

  /** Makes communities known, and stops the worker. */
  async prepareWorker() {
    for (const [community, managers] of managersOf)
      await this.call('PUT', `/v1/communities/${community}/managers`, { body: { managers }, role: 'admin' });
    await this.app('notifier').stop();
  }

  /** How many events are not handled. */
  async backlog() {
    return this.withStreams(async (jsm) => {
      const { num_pending, num_ack_pending } = await jsm.consumers.info(STREAM, this.consumer);
      return num_pending + num_ack_pending;
    });
  }

  /** How many notifications were told. */
  async told() {
    return this.withStreams(async (jsm) => {
      const { state } = await jsm.streams.info('PH_GLOBAL', { subjects_filter: CREATED });
      return Object.values(state.subjects ?? {}).reduce((sum, count) => sum + count, 0);
    });
  }

  /**
   * @template T
   * @param {(jsm: import('@nats-io/jetstream').JetStreamManager) => Promise<T>} look
   */
  async withStreams(look) {
    const connection = await connect({ servers: this.natsUrl });
    try {
      return await look(await jetstreamManager(connection));
    } finally {
      await connection.close();
    }
  }

  /**
   * @param {string} sql
   * @returns {Promise<any>} the first row
   */
  async query(sql) {
    const client = new pg.Client(this.postgres.url('posthorn'));
    await client.connect();
    try {
      return (await client.query(sql)).rows[0];
    } finally {
      await client.end();
    }
  }
}

/** Ours. */
class Notifier extends WorkerServer {
  get worker() {
    return { pid: this.app('notifier').pid ?? 0 };
  }

  async resumeWorker() {
    await this.app('notifier').start();
  }

  /** Notifications that are stored. */
  async written() {
    return (await this.query('SELECT count(*)::int AS count FROM notifier.notification')).count;
  }

  /** @param {number} events */
  async checkWorker(events) {
    const stored = await this.query(
      `SELECT count(*)::int AS count, count(emitted_at)::int AS emitted,
              count(*) FILTER (WHERE withdrawn)::int AS withdrawn,
              (SELECT sum(unread_count)::int FROM notifier.inbox) AS unread
       FROM notifier.notification`,
    );
    const told = await this.told();
    const { count, emitted, withdrawn, unread } = stored;
    const wanted = notificationsOf(events);
    return [
      ...(count === wanted ? [] : [`stored: ${count} instead of ${wanted}`]),
      ...(emitted === wanted ? [] : [`noted as told: ${emitted}`]),
      ...(unread === count - withdrawn ? [] : [`unread: ${unread}`]),
      // An invite that was taken back in the same batch is told to nobody.
      ...(told >= count - withdrawn && told <= count ? [] : [`told: ${told}`]),
    ];
  }
}

/** A worker of a few lines. */
class OneByOne extends WorkerServer {
  /** @override */
  consumer = 'one-by-one';
  #dir;
  /** @type {GuardedProcess | undefined} */
  #process;

  /** @param {import('../contender.mjs').Place} place */
  constructor(place) {
    super(place);
    this.#dir = place.dir;
  }

  get worker() {
    return { pid: this.#process?.pid ?? 0 };
  }

  async resumeWorker() {
    await this.query(
      `CREATE TABLE one_by_one (id uuid PRIMARY KEY, audience text, event_id text, target text, content json,
                                UNIQUE (audience, event_id, target))`,
    );
    await this.withStreams((jsm) =>
      jsm.consumers.add(STREAM, {
        durable_name: this.consumer,
        ack_policy: AckPolicy.Explicit,
        max_ack_pending: 1_024,
      }),
    );
    this.#process = new GuardedProcess(process.execPath, [oneByOneProgram], {
      logFile: join(this.#dir, 'one-by-one.log'),
      env: {
        ...process.env,
        NATS_URL: this.natsUrl,
        DATABASE_URL: this.postgres.url('posthorn'),
        CONSUMER: this.consumer,
      },
    });
  }

  async written() {
    return (await this.query('SELECT count(*)::int AS count FROM one_by_one')).count;
  }

  /** @param {number} events */
  async checkWorker(events) {
    const count = await this.written();
    const told = await this.told();
    const wanted = notificationsOf(events);
    return [
      ...(count === wanted ? [] : [`stored: ${count} instead of ${wanted}`]),
      ...(told === wanted ? [] : [`told: ${told}`]),
    ];
  }

  /** @override */
  async stop() {
    await this.#process?.stop();
    await super.stop();
  }
}

/** @typedef {Notifier | OneByOne} Worker */

/**
 * @template {Worker} W
 * @param {W} server
 */
async function started(server) {
  try {
    await server.start();
    return server;
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/** @param {import('../contender.mjs').Place} place */
export const startNotifier = (place) => started(new Notifier(place));

/** @param {import('../contender.mjs').Place} place */
export const startOneByOne = (place) => started(new OneByOne(place));
