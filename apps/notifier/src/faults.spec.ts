import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { prepareBus, startTcpProxy, type TcpProxy } from '@posthorn/testing';
import { CONSUMER, type Environment, type Replica, startEnvironment } from '../test/environment.js';

const payload = { author: 'ann', target: 'tom', community: 'chess' };

/** A replica behind links to NATS and PostgreSQL. */
interface Linked {
  readonly replica: Replica;
  readonly nats: TcpProxy;
  readonly database: TcpProxy;
}

describe('a notifier', () => {
  let env: Environment;
  const links: TcpProxy[] = [];

  const link = async (url: string): Promise<{ proxy: TcpProxy; url: string }> => {
    const target = new URL(url);
    const proxy = await startTcpProxy(Number(target.port));
    links.push(proxy);
    target.port = String(proxy.port);
    return { proxy, url: target.href };
  };
  const linked = async (more: Record<string, string> = {}): Promise<Linked> => {
    const nats = await link(env.nats.url);
    const database = await link(env.databaseUrl);
    const replica = env.replica({ NATS_URL: nats.url, DATABASE_URL: database.url, ...more });
    return { replica, nats: nats.proxy, database: database.proxy };
  };
  const publish = (count: number, prefix: string) =>
    Promise.all(
      Array.from({ length: count }, (_, i) =>
        env
          .pubsub()
          .local.topic('notification:external')
          .publish({ target: `${prefix}${i}`, action: 'a' }),
      ),
    );
  /** Each of so many users was told once, and has it in the inbox. */
  const expectOnce = async (count: number) => {
    const created = await env.created();
    expect(new Set(created.map(({ target }) => target)).size).toBe(count);
    expect(created).toHaveLength(count);
    const [rows] = await env.query(
      'SELECT count(*)::int AS all, count(emitted_at)::int AS emitted FROM notifier.notification',
    );
    expect(rows).toEqual({ all: count, emitted: count });
    expect(await env.query('SELECT * FROM notifier.inbox WHERE unread_count <> 1')).toEqual([]);
    expect(await env.deadLetters()).toEqual([]);
  };
  const until = async (condition: () => boolean | Promise<boolean>) => {
    while (!(await condition())) await sleep(10);
  };
  const redelivered = async () => (await env.jsm.consumers.info('PH_LOCAL', CONSUMER)).num_redelivered;

  afterEach(async () => {
    for (const proxy of links) proxy.restore();
    await env[Symbol.asyncDispose]();
    for (const proxy of links.splice(0)) await proxy[Symbol.asyncDispose]();
  });

  describe('that comes up first', () => {
    beforeEach(async () => {
      env = await startEnvironment(['acme'], { prepared: false });
    });

    it('waits for NATS, PostgreSQL and the streams, and says once for what', async () => {
      const { replica, nats, database } = await linked();
      nats.cut();
      database.cut();
      const checks = () => replica.health.readiness().checks;
      await until(
        () => checks().nats?.detail !== 'not started' && checks().database?.detail !== 'not started',
      );
      expect(replica.health.readiness()).toMatchObject({
        status: 'not_ready',
        checks: {
          nats: { up: false },
          database: { up: false },
          streams: { up: false, detail: 'not started' },
        },
      });

      database.restore();
      await until(() => checks().database?.up === true);
      nats.restore();
      await until(() => checks().nats?.up === true && checks().streams?.detail !== 'not started');
      expect(checks().streams?.detail).toBe('PH_GLOBAL: stream not found');
      await prepareBus(env.nats);
      await replica.started;
      expect(replica.health.ready).toBe(true);

      const said = replica.lines
        .map(({ msg }) => msg)
        .filter((msg) => /^waiting for|is there$/.test(String(msg)));
      expect(said.sort()).toEqual([
        'database is there',
        'nats is there',
        'streams is there',
        'waiting for database',
        'waiting for nats',
        'waiting for streams',
      ]);
      await env.pubsub().local.topic('community:membership:invite').publish(payload);
      await env.settled();
      expect(await env.created()).toHaveLength(1);
    });

    it('ends at once when it is told to while it waits', async () => {
      const { replica } = await linked();
      await until(() => replica.health.readiness().checks.nats?.up === true);
      await replica.stop();
      await expect(replica.started).rejects.toThrow('shutting down');
    });
  });

  describe('that is up', () => {
    beforeEach(async () => {
      env = await startEnvironment(['acme']);
    });

    it('holds events while PostgreSQL is away, and gives none of them up', async () => {
      const { replica, database } = await linked();
      await replica.started;
      await publish(50, 'before ');
      await env.settled();
      database.cut();
      await publish(50, 'meanwhile ');
      await until(() => !replica.health.ready);
      const held =
        /^posthorn_notifier_events_total\{consumer="notifications",outcome="held",app="notifier"\} [1-9]/m;
      await until(async () => held.test((await replica.metrics.exposition()).body));
      const waiting =
        /^posthorn_consumer_(pending_events|lag_seconds)\{consumer="notifications",app="notifier"\} [1-9]/gm;
      await until(async () => ((await replica.metrics.exposition()).body.match(waiting) ?? []).length === 2);
      database.restore();
      await env.settled();
      await expectOnce(100);
      await until(() => replica.health.ready);
      const said = replica.lines
        .map(({ msg }) => msg)
        .filter((msg) => String(msg).startsWith('the database'));
      expect(said).toEqual(['the database is away', 'the database is back']);
      const caughtUp = /^posthorn_consumer_lag_seconds\{consumer="notifications",app="notifier"\} 0$/m;
      await until(async () => caughtUp.test((await replica.metrics.exposition()).body));
    });

    it('goes on where it was when NATS comes back', async () => {
      const { replica, nats } = await linked({ ACK_WAIT: '1s' });
      await replica.started;
      const publishing = publish(600, 'user ');
      await until(async () => (await env.created()).length > 0);
      nats.cut();
      await publishing;
      await until(() => !replica.health.ready);
      nats.restore();
      await env.settled();
      await expectOnce(600);
    });

    it('hands its events to another when it dies in the middle of a batch', async () => {
      for (const moment of [0, 20, 60]) {
        const prefix = `after ${moment} ms: `;
        const dying = await linked({ ACK_WAIT: '1s', BATCH_SIZE: '50' });
        await dying.replica.started;
        const publishing = publish(400, prefix);
        await sleep(moment);
        dying.nats.cut();
        dying.database.cut();
        await publishing;
        const heir = env.replica({ ACK_WAIT: '1s' });
        await heir.started;
        await env.settled();
        await heir.stop();
      }
      await expectOnce(1_200);
    }, 60_000);

    it('shares the events of its instance with its replicas, each event to one of them', async () => {
      const replicas = [env.replica(), env.replica()];
      await Promise.all(replicas.map(({ started }) => started));
      await publish(2_000, 'user ');
      await env.settled();
      await expectOnce(2_000);
      const handled = await Promise.all(
        replicas.map(async ({ metrics }) => {
          const { body } = await metrics.exposition();
          return Number(/consumer="notifications",outcome="handled",app="notifier"\} (\d+)/.exec(body)?.[1]);
        }),
      );
      expect(handled[0]! + handled[1]!).toBe(2_000);
      expect(Math.min(...handled)).toBeGreaterThan(0);
    });

    it('finishes what it has begun when it is told to end, and leaves the rest', async () => {
      // What the server was about to send when it ended waits for so long.
      const first = env.replica({ BATCH_SIZE: '20', ACK_WAIT: '1s' });
      await first.started;
      const publishing = publish(1_500, 'user ');
      await until(async () => (await env.created()).length > 0);
      await first.stop();
      expect(first.health.readiness().status).toBe('draining');
      expect(first.lines.filter(({ level }) => level !== 'info')).toEqual([]);
      await publishing;
      const [rows] = await env.query<{ open: number }>(
        'SELECT count(*)::int AS open FROM notifier.notification WHERE emitted_at IS NULL',
      );
      expect(rows?.open).toBe(0);
      const second = env.replica({ ACK_WAIT: '1s' });
      await second.started;
      await env.settled();
      await expectOnce(1_500);
      expect(await redelivered()).toBe(0);
    });
  });
});
