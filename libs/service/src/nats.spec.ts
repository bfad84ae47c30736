import { EventEmitter, once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { nkeys } from '@nats-io/transport-node';
import {
  freePort,
  startNats,
  startNatsCluster,
  type TempDir,
  type TestNats,
  tempDir,
} from '@posthorn/testing';
import { type ConfigError, natsFields, readConfig } from './config.js';
import { Health } from './health.js';
import { createLogger } from './logger.js';
import { connectNats, type NatsLink, type NatsSettings, natsLogin, natsOptions } from './nats.js';

describe('natsOptions', () => {
  it('takes user and password out of the URL', () => {
    const options = natsOptions({ url: 'nats://me:p%40ss@a:4222,nats://me:p%40ss@b:4223', name: 'x' });
    expect(options).toMatchObject({ servers: ['nats://a:4222', 'nats://b:4223'], user: 'me', pass: 'p@ss' });
  });

  it('takes a lone user name for a token, as the NATS tools do', () => {
    expect(natsOptions({ url: 'nats://t0ken@a:4222', name: 'x' })).toMatchObject({ token: 't0ken' });
  });

  it('prefers the identity that is given apart from the URL', () => {
    const options = natsOptions({ url: 'nats://a:4222', name: 'x', user: 'me', password: 'sesame' });
    expect(options).toMatchObject({ user: 'me', pass: 'sesame' });
  });

  it('asks for TLS when the URL does', () => {
    expect(natsOptions({ url: 'tls://a:4222', name: 'x' })).toMatchObject({
      tls: { checkServerIdentity: expect.any(Function) },
    });
    expect(natsOptions({ url: 'nats://a:4222', name: 'x' })).not.toHaveProperty('tls');
  });
});

describe('natsLogin', () => {
  const seed = new TextDecoder().decode(nkeys.createUser().getSeed());
  const WHOLE = { NATS_USER: 'auth', NATS_PASSWORD: 'sesame' };
  let home: TempDir;
  let creds: string;

  beforeAll(async () => {
    home = await tempDir();
    creds = join(home.path, 'nats.creds');
    writeFileSync(creds, '-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n');
  });
  afterAll(async () => {
    await home?.[Symbol.asyncDispose]();
  });

  function findings(env: Record<string, string | undefined>) {
    try {
      readConfig(natsFields, { env, rules: [natsLogin] });
      return [];
    } catch (error) {
      expect(String(error)).not.toMatch(`sesame|${seed}`);
      return (error as ConfigError).findings;
    }
  }

  it('takes one way to log in, or none', () => {
    for (const env of [{}, WHOLE, { NATS_NKEY_SEED: seed }, { NATS_CREDS: creds }])
      expect(findings(env)).toEqual([]);
  });

  it.each([
    ['NATS_USER', { NATS_PASSWORD: 'sesame' }],
    ['NATS_PASSWORD', { NATS_USER: 'auth' }],
    ['NATS_USER and NATS_CREDS', { ...WHOLE, NATS_CREDS: 'creds' }],
    ['NATS_NKEY_SEED and NATS_CREDS', { NATS_NKEY_SEED: seed, NATS_CREDS: 'creds' }],
    ['the login in NATS_URL and NATS_USER', { ...WHOLE, NATS_URL: 'nats://me:sesame@nats' }],
    ['NATS_NKEY_SEED', { NATS_NKEY_SEED: 'sesame' }],
    ['NATS_URL', { NATS_URL: 'nats://me:sesame%zz@nats' }],
  ])('names %s where they do not go together, and no secret', (name, { ...env }: Record<string, string>) => {
    if (env.NATS_CREDS) env.NATS_CREDS = creds;
    expect(findings(env)).toEqual([expect.objectContaining({ name })]);
  });

  it('says all of it at once', () => {
    const env = { NATS_USER: 'auth', NATS_NKEY_SEED: 'sesame', NATS_CREDS: '/nowhere/nats.creds' };
    expect(findings(env).map(({ name }) => name)).toEqual([
      'NATS_CREDS',
      'NATS_USER and NATS_NKEY_SEED and NATS_CREDS',
      'NATS_PASSWORD',
      'NATS_NKEY_SEED',
    ]);
  });
});

describe('connectNats', () => {
  let lines: Record<string, unknown>[];
  let log: EventEmitter;
  let health: Health;
  let link: NatsLink | undefined;

  beforeEach(() => {
    lines = [];
    log = new EventEmitter();
    health = new Health();
    link = undefined;
  });

  afterEach(() => link?.close());

  const said = () => lines.map(({ msg }) => msg);

  async function connect(settings: Partial<NatsSettings> & { url: string }, signal?: AbortSignal) {
    const write = (text: string) => {
      const line = JSON.parse(text);
      lines.push(line);
      log.emit(line.msg, line);
    };
    const logger = createLogger({ app: 'auth', destination: { write } });
    link = await connectNats({ name: 'auth-1', logger, health, ...settings, ...(signal ? { signal } : {}) });
    return link;
  }

  const turn = (to: boolean, on: NatsLink) =>
    new Promise<void>((resolve) => {
      const stop = on.watch((connected) => {
        if (connected !== to) return;
        stop();
        resolve();
      });
    });

  /** Why the connection does not come about, as the log gives it. */
  async function reason(): Promise<unknown> {
    const [line] = await once(log, 'waiting for nats');
    expect(health.ready).toBe(false);
    expect(health.readiness().checks.nats?.detail).toBe(line.reason);
    return line.reason;
  }

  it('waits for a server that is not there yet', async () => {
    await using nats = await startNats();
    await nats.kill();
    const connecting = connect({ url: nats.url });
    expect(await reason()).toContain('refused');
    await nats.start();
    expect((await connecting).isConnected()).toBe(true);
    expect(health.ready).toBe(true);
    expect(said()).toEqual(['waiting for nats', 'nats is there']);
  });

  it('says that it is refused, and connects once it is let in', async () => {
    await using nats = await startNats({ config: 'authorization { user: me, password: sesame }' });
    const stop = new AbortController();
    const refused = connect({ url: nats.url.replace('nats://', 'nats://me:wrong@') }, stop.signal);
    expect(await reason()).toContain('Authorization Violation');
    stop.abort(new Error('given up'));
    await expect(refused).rejects.toThrow('given up');

    await connect({ url: nats.url.replace('nats://', 'nats://me:sesame@') });
    expect(health.ready).toBe(true);
    expect(JSON.stringify(lines)).not.toMatch(/sesame|wrong/);
  });

  it('reports a loss and the return once each, and works again', async () => {
    await using nats = await startNats();
    const { connection, isConnected } = await connect({ url: nats.url });
    const lost = turn(false, link as NatsLink);
    await nats.kill();
    await lost;
    expect(isConnected()).toBe(false);
    expect(health.readiness().checks.nats).toMatchObject({ up: false, detail: 'disconnected' });

    const back = turn(true, link as NatsLink);
    await nats.start();
    await back;
    expect(health.ready).toBe(true);
    await connection.flush();
    expect(said()).toEqual(['NATS connection lost', 'NATS connection is back']);
  });

  it('fails over to a server that could not be reached when it connected', async () => {
    await using first = await startNats();
    await using second = await startNats();
    await second.kill();
    const { connection } = await connect({ url: `${first.url},${second.url}` });
    const back = turn(true, link as NatsLink);
    await second.start();
    await first.kill();
    await back;
    expect(connection.getServer()).toBe(`127.0.0.1:${second.port}`);
  });

  it('keeps the servers that a cluster told of', async () => {
    await using cluster = await startNatsCluster();
    const { connection } = await connect({ url: cluster.servers[0]?.url as string });
    expect(connection.getServers().length).toBe(3);
  });

  it('ends the waiting at a signal', async () => {
    const stop = new AbortController();
    const connecting = connect({ url: `nats://127.0.0.1:${await freePort()}` }, stop.signal);
    await reason();
    stop.abort(new Error('shutting down'));
    await expect(connecting).rejects.toThrow('shutting down');
  });

  it('sends what was published before it closes', async () => {
    await using nats: TestNats = await startNats();
    const listener = await connectNats({
      url: nats.url,
      name: 'listener',
      logger: createLogger({ app: 'auth', level: 'silent' }),
      health: new Health(),
    });
    const received = new Promise<string>((resolve) => {
      listener.connection.subscribe('ping', { callback: (_, message) => resolve(message.string()) });
    });
    await listener.connection.flush();
    const { connection, close } = await connect({ url: nats.url });
    connection.publish('ping', 'last words');
    await close();
    expect(await received).toBe('last words');
    await listener.close();
  });

  it('closes while the server is away', async () => {
    await using nats = await startNats();
    const { close, connection } = await connect({ url: nats.url });
    const lost = turn(false, link as NatsLink);
    await nats.kill();
    await lost;
    await close();
    expect(connection.isClosed()).toBe(true);
  });
});
