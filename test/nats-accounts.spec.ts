/** A whole cluster on a NATS server with accounts: every app and service with no more rights than it has. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, headers, type NatsConnection } from '@nats-io/transport-node';
import { connectPubSub, PermanentFailure, type PubSub } from '@posthorn/bus';
import { EXAMPLES } from '@posthorn/contracts';
import { startCluster, type TestCluster } from '@posthorn/testing';
import type { CourierSocket } from './support/courier-client.js';
import { createTenant, eventually, type Tenant, wholeInbox } from './support/tenant.js';

const QUOTA = 500;

let cluster: TestCluster;
let acme: Tenant;
let shop: PubSub;
let ann: CourierSocket;

beforeAll(async () => {
  cluster = await startCluster({
    accounts: {
      audiences: ['acme', 'beta'],
      services: [
        { name: 'shop', audience: 'acme' },
        { name: 'mail', audience: null },
      ],
      operator: true,
    },
    env: { PUBLISHES_PER_DAY: String(QUOTA) },
  });
  acme = await createTenant(cluster, 'acme');
  shop = sdk('shop');
  ann = await acme.socket('ann');
}, 120_000);

afterAll(async () => {
  await shop?.close();
  await cluster?.[Symbol.asyncDispose]();
});

function sdk(source: string): PubSub {
  const credentials = cluster.natsLogin(`service-${source}`);
  return connectPubSub({ servers: cluster.natsUrl, audience: 'acme', source, credentials });
}

async function login(user: string, inboxPrefix = '_INBOX'): Promise<NatsConnection> {
  const { user: name, password: pass } = cluster.natsLogin(user);
  return connect({ servers: cluster.natsUrl, user: name, pass, inboxPrefix });
}

/** What the server has refused since it started. */
function refusals(): string[] {
  return readFileSync(cluster.nats.logFile, 'utf8')
    .split('\n')
    .filter((line) => /violation/i.test(line));
}

describe('with accounts and permissions', () => {
  it('events come from REST, from services and from the account of their audience', async () => {
    await ann.subscribe('news');
    await acme.service('POST', '/v1/hook', { topic: 'news', action: 'publish', message: { from: 'rest' } });
    await ann.count('message', 1);
    await shop.global.topic('news').publish({ from: 'sdk' });
    await ann.count('message', 2);
    const publisher = await login('audience-acme');
    await jetstream(publisher).publish('ph.acme.global.-.news', '{"from":"account"}');
    await publisher.close();
    const messages = await ann.count('message', 3);
    expect(messages.map(({ message }) => (message as { from: string }).from)).toEqual([
      'rest',
      'sdk',
      'account',
    ]);
  });

  it('ephemeral events, registered topics and local events pass', async () => {
    const admin = await acme.as('root', { role: 'admin' });
    expect((await admin('POST', '/v1/topic', { topic: 'cursors', durable: false })).status).toBe(201);
    const heard: unknown[] = [];
    const cursors = shop.global.topic('cursors').subscribe((data) => heard.push(data));
    const local = shop.local.topic('login:success').subscribe((data) => heard.push(data));
    await Promise.all([cursors.ready, local.ready]);
    await ann.subscribe('cursors');
    const before = ann.frames.length;
    await shop.global.topic('cursors').publish({ x: 1 });
    await ann.find(({ action }) => action === 'message', before);
    await shop.local.topic('login:success').publish({ user: 'ann' });
    await eventually(async () => heard.length === 2 || undefined);
    expect(heard).toEqual([{ x: 1 }, { user: 'ann' }]);
    await Promise.all([cursors.close(), local.close()]);
  });

  it('a community event becomes a notification', async () => {
    await ann.subscribe('usernotification:created');
    await acme.service('PUT', '/v1/communities/chess/managers', { managers: ['ann'] });
    const request = { author: 'tom', target: 'tom', community: 'chess' };
    await shop.local.topic('community:membership:request').publish(request);
    await ann.find(({ action, topic }) => action === 'message' && topic === 'usernotification:created');
    expect(await wholeInbox(await acme.as('ann'))).toMatchObject([{ complement: { id: 'chess' } }]);
  });

  it('a dead letter is listed and redriven, and repeats are told apart', async () => {
    const admin = await acme.as('root', { role: 'admin' });
    const mail = sdk('mail');
    let failing = true;
    const heard: unknown[] = [];
    const topic = mail.local.topic('message:stored');
    const durable = topic.subscribe(
      async (data) => {
        if (failing) throw new PermanentFailure('out_of_ink', 'Out of ink');
        heard.push(data);
      },
      { durable: 'printer', distinct: { by: ['text'] } },
    );
    await durable.ready;
    await topic.publish({ text: 'hello' });
    const [letter] = await eventually(async () => {
      const { body } = await admin('GET', '/v1/dead-letters?code=out_of_ink');
      return body.items?.length === 1 ? body.items : undefined;
    });
    failing = false;
    await admin('POST', `/v1/dead-letters/${letter.id}/redrive`);
    await eventually(async () => heard.length === 1 || undefined);
    await mail.close();
  });

  it('long histories are read', async () => {
    await using first = await acme.socket('reader');
    const { position } = await first.subscribe('log');
    for (let n = 0; n < 100; n++) await shop.global.topic('log').publish({ n });
    await using second = await acme.socket('reader');
    expect(await second.subscribe('log', position as string)).toMatchObject({ recovered: true });
    expect(await second.count('message', 100)).toHaveLength(100);
  });

  it('revocations and quotas are kept', async () => {
    const admin = await acme.as('root', { role: 'admin' });
    const bob = await acme.as('bob');
    expect((await bob('GET', '/v1/notifications')).status).toBe(200);
    expect((await admin('POST', '/v1/revocations', { sub: 'bob' })).status).toBe(200);
    await eventually(async () => (await bob('GET', '/v1/notifications')).status === 401 || undefined);
    const beta = await createTenant(cluster, 'beta');
    const message = { topic: 'a', action: 'publish', message: {} };
    await eventually(async () => {
      const answers = await Promise.all(
        Array.from({ length: 100 }, () => beta.service('POST', '/v1/hook', message)),
      );
      return answers.some(({ body }) => body.code === 'publish_quota') || undefined;
    });
  });

  it('the registry updates the streams', async () => {
    const operator = await login('operator');
    const jsm = await jetstreamManager(operator);
    const registry = await cluster.addReplica('registry', { STREAM_MAX_AGE: '7200' });
    expect((await jsm.streams.info('PH_GLOBAL')).config.max_age).toBe(7200 * 1e9);
    await registry.stop();
    await operator.close();
  });

  it('and the server had nothing to refuse', () => {
    expect(refusals()).toEqual([]);
  });
});

describe('a service that publishes where it may not', () => {
  it.each([
    ['usernotification:created', EXAMPLES['usernotification:created']],
    ['usernotification:anything', {}],
  ])('is told so at once: %s', async (name, payload) => {
    const before = Date.now();
    const publishing = shop.global.topic(name as string).publish(payload as object);
    await expect(publishing).rejects.toThrow(/does not let this process publish there/);
    expect(Date.now() - before).toBeLessThan(4_000);
    const rest = { topic: name, action: 'publish', message: payload };
    expect((await acme.service('POST', '/v1/hook', rest)).body).toMatchObject({ code: 'forbidden' });
  });
});

describe('npm run nats-config', () => {
  const run = (...args: string[]) =>
    execFileSync(process.execPath, ['tools/nats-config.mjs', ...args], { encoding: 'utf8', stdio: 'pipe' });

  it('prints the configuration, and the variables that the server needs for it', () => {
    const options = ['--audiences', 'acme,beta', '--service', 'mail', '--service', 'shop@acme'];
    const text = run(...options);
    const variables = run(...options, '--variables')
      .trimEnd()
      .split('\n');
    expect(variables).toHaveLength(8);
    for (const line of variables) expect(text).toContain(`password: $${line.split(' ')[1]}`);
    expect(text.match(/password: (?!\$)/g)).toBeNull();
  });

  it('says what it does not understand', () => {
    expect(() => run('--audience', '')).toThrow(/audience must be/);
    expect(() => run('--nonsense')).toThrow(/nonsense/);
  });
});

describe('what somebody with the rights of a service or a gateway sends where it does not belong', () => {
  const notification = { ...EXAMPLES['usernotification:created'], target: 'ann' };

  it.each([
    ['gateway', '_INBOX.gateway'],
    ['service-mail', '_INBOX.service.mail'],
  ])('%s: is no notification, no live event, no call and no revocation', async (user, inbox) => {
    const nc = await login(user, inbox);
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    const filter = 'ph.*.global.>';
    const before = ann.frames.length;
    const forge = async (
      target: string,
      payload: object,
      as: object = {},
      on = 'ph.acme.global.-.crafted',
    ) => {
      const forged = headers();
      for (const [header, value] of Object.entries(as)) forged.set(header, String(value));
      const options = { headers: forged };
      const { seq } = await jetstream(nc).publish(on, JSON.stringify(payload), options);
      const from = { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: seq };
      const name = `crafted-${seq}`;
      const pulled = await jsm.consumers.add('PH_GLOBAL', {
        ...{ name, filter_subject: filter, ack_policy: AckPolicy.None, ...from },
      });
      nc.publish(target, JSON.stringify(payload));
      nc.publish('ph.acme.global.-.crafted', JSON.stringify(payload), { reply: target });
      const ask = (api: string, question: unknown) =>
        nc.publish(`$JS.API.${api}`, JSON.stringify(question), { reply: target });
      ask(`CONSUMER.MSG.NEXT.PH_GLOBAL.${pulled.name}`, { batch: 1, no_wait: true });
      ask('STREAM.MSG.GET.PH_GLOBAL', { seq });
      ask('DIRECT.GET.PH_GLOBAL', { seq });
      ask(`CONSUMER.CREATE.PH_GLOBAL.pushed-${seq}.${filter}`, {
        stream_name: 'PH_GLOBAL',
        config: {
          name: `pushed-${seq}`,
          deliver_subject: target,
          filter_subject: filter,
          ack_policy: 'none',
          ...from,
        },
      });
      await nc.flush();
      for (const made of [name, `pushed-${seq}`])
        await jsm.consumers.delete('PH_GLOBAL', made).catch(() => {});
    };
    await forge('ph.acme.global.ann.usernotification.created', notification);
    await forge('ph-live.acme.ann.usernotification.created', notification);
    // As long as the live subject's beginning, `ph-live.acme.`, is `ph.ab.global.`: what follows is a topic again.
    const last = await jsm.streams.getMessage('PH_GLOBAL', { last_by_subj: 'ph.acme.global.-.news' });
    const copy = {
      'Nats-Stream': 'PH_GLOBAL',
      'Nats-Subject': 'ph.acme.global.-.news',
      'Nats-Sequence': last!.seq + 1_000,
      'Nats-Last-Sequence': last!.seq,
    };
    await forge('ph-live.acme.-.news', { forged: true }, copy, 'ph.ab.global.-.news');
    await forge('$KV.ph-revoked.acme.all', { issuedBefore: null, revokedAt: new Date().toISOString() });
    // The gateway itself may call; a service may not, and has JetStream call for it.
    if (user !== 'gateway') {
      const data = { audience: 'acme', sub: 'ann' };
      await forge('ph-rpc.auth.revoke', { pattern: 'ph-rpc.auth.revoke', id: 'x', data });
    }
    await shop.global.topic('news').publish({ sentinel: user });
    await ann.find(({ message }) => (message as { sentinel?: string })?.sentinel === user, before);
    const messages = ann.frames.slice(before).filter(({ action }) => action === 'message');
    expect(messages.map(({ message }) => message)).toEqual([{ sentinel: user }]);
    expect((await (await acme.as('ann'))('GET', '/v1/notifications')).status).toBe(200);
    expect(ann.socket.readyState).toBe(ann.socket.OPEN);
    expect(refusals().length).toBeGreaterThan(0);
    await nc.close();
  });
});
