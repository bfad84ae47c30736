import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { Controller, type INestMicroservice, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { MessagePattern, Payload } from '@nestjs/microservices';
import { type ProblemCode, ProblemError } from '@posthorn/contracts';
import { startNats, type TestNats } from '@posthorn/testing';
import { IsEmail, IsString } from 'class-validator';
import { Health } from './health.js';
import { createLogger } from './logger.js';
import { connectNats, type NatsLink } from './nats.js';
import { RpcClient, RpcProblemFilter, rpcServerOptions } from './rpc.js';
import { validationPipe } from './validation.js';

class Invitation {
  @IsString()
  name!: string;

  @IsEmail()
  email!: string;
}

/** What the replicas of the test share: which of them answered, and what holds a slow call. */
const answered: string[] = [];
let slowCall = { begun: () => {}, release: Promise.resolve() };

function replica(id: string): new () => object {
  @Controller()
  class Calls {
    @MessagePattern('ph-rpc.demo.echo')
    echo(@Payload() { text }: { text: string }) {
      answered.push(id);
      return { text, by: id };
    }

    @MessagePattern('ph-rpc.demo.invite')
    invite(@Payload() invitation: Invitation) {
      return { invited: invitation.email };
    }

    @MessagePattern('ph-rpc.demo.fail')
    fail(@Payload() { code }: { code: ProblemCode }) {
      throw new ProblemError(code, 'as asked', {
        errors: [{ path: '/code', message: 'asked' }],
        retryAfter: 3,
      });
    }

    @MessagePattern('ph-rpc.demo.break')
    async break() {
      await Promise.resolve();
      throw new Error('the database password is sesame');
    }

    @MessagePattern('ph-rpc.demo.refuse')
    refuse() {
      throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
    }

    @MessagePattern('ph-rpc.demo.forget')
    forget() {
      return undefined;
    }

    @MessagePattern('ph-rpc.demo.slow')
    async slow() {
      slowCall.begun();
      await slowCall.release;
      return { done: true };
    }
  }

  @Module({ controllers: [Calls] })
  class Demo {}
  return Demo;
}

let nats: TestNats;
const open: NatsLink[] = [];
const apps: INestMicroservice[] = [];
const lines: Record<string, unknown>[] = [];
const logger = createLogger({
  app: 'demo',
  destination: { write: (line) => void lines.push(JSON.parse(line)) },
});

beforeEach(async () => {
  nats = await startNats();
  answered.length = 0;
  lines.length = 0;
  slowCall = { begun: () => {}, release: Promise.resolve() };
});

afterEach(async () => {
  for (const app of apps.splice(0)) await app.close();
  for (const link of open.splice(0)) await link.close();
  await nats[Symbol.asyncDispose]();
});

async function connect(name: string): Promise<NatsLink> {
  const inboxPrefix = `_INBOX.${name}`;
  const link = await connectNats({ url: nats.url, name, inboxPrefix, logger, health: new Health() });
  open.push(link);
  return link;
}

async function serve(id: string): Promise<INestMicroservice> {
  const link = await connect('demo');
  const app = await NestFactory.createMicroservice(replica(id), {
    ...rpcServerOptions({ nats: link, app: 'demo' }),
    logger: false,
  });
  app.useGlobalPipes(validationPipe());
  const translate = (error: unknown) =>
    (error as { code?: string }).code === 'ECONNREFUSED'
      ? new ProblemError('unavailable', 'The database is away')
      : undefined;
  app.useGlobalFilters(new RpcProblemFilter({ logger, translate }));
  await app.listen();
  await link.connection.flush();
  apps.push(app);
  return app;
}

const client = async () => new RpcClient(await connect('caller'));

async function problemOf(call: Promise<unknown>): Promise<ProblemError> {
  const error = await call.then(
    () => new Error('the call was answered'),
    (reason: unknown) => reason,
  );
  if (error instanceof ProblemError) return error;
  throw error;
}

describe('a call to an app with two replicas', () => {
  it('is answered exactly once, and the calls are shared', async () => {
    await serve('one');
    await serve('two');
    const rpc = await client();
    const texts = Array.from({ length: 100 }, (_, index) => `call ${index}`);
    const replies = await Promise.all(
      texts.map((text) => rpc.call<object, { text: string }>('ph-rpc.demo.echo', { text })),
    );
    expect(replies.map(({ text }) => text)).toEqual(texts);
    expect(answered.length).toBe(100);
    expect(new Set(answered)).toEqual(new Set(['one', 'two']));
  });

  it('goes to the other one when one is closed', async () => {
    const first = await serve('one');
    await serve('two');
    const rpc = await client();
    await first.close();
    for (let call = 0; call < 10; call += 1) await rpc.call('ph-rpc.demo.echo', { text: 'x' });
    expect(new Set(answered)).toEqual(new Set(['two']));
  });
});

describe('what a call answers', () => {
  it('is nothing when the handler returns nothing', async () => {
    await serve('one');
    expect(await (await client()).call('ph-rpc.demo.forget', undefined)).toBeUndefined();
  });

  it('is the error of the catalogue that the other app threw, with its findings', async () => {
    await serve('one');
    const problem = await problemOf((await client()).call('ph-rpc.demo.fail', { code: 'topic_conflict' }));
    expect(problem).toMatchObject({
      code: 'topic_conflict',
      detail: 'as asked',
      errors: [{ path: '/code', message: 'asked' }],
      retryAfter: 3,
    });
  });

  it('is request_invalid with a pointer for each finding when the body is not valid', async () => {
    await serve('one');
    const problem = await problemOf((await client()).call('ph-rpc.demo.invite', { email: 'nowhere' }));
    expect(problem.code).toBe('request_invalid');
    expect(problem.errors).toEqual([
      { path: '/name', message: 'name must be a string' },
      { path: '/email', message: 'email must be an email' },
    ]);
  });

  it('is internal for anything else, logged where it happened and told to nobody', async () => {
    await serve('one');
    const problem = await problemOf((await client()).call('ph-rpc.demo.break', {}));
    expect(problem.code).toBe('internal');
    expect(problem.detail).not.toContain('sesame');
    expect(lines).toContainEqual(
      expect.objectContaining({ msg: 'call failed', subject: 'ph-rpc.demo.break', err: expect.anything() }),
    );
  });

  it("is what the app makes of its own dependencies' failures", async () => {
    await serve('one');
    const problem = await problemOf((await client()).call('ph-rpc.demo.refuse', {}));
    expect(problem).toMatchObject({ code: 'unavailable', detail: 'The database is away' });
  });
});

describe('a call that nobody answers is unavailable', () => {
  it('at once when no replica is there', async () => {
    const began = performance.now();
    expect((await problemOf((await client()).call('ph-rpc.demo.echo', {}))).code).toBe('unavailable');
    expect(performance.now() - began).toBeLessThan(3_000);
  });

  it('after its time-out when a replica does not answer', async () => {
    let release = () => {};
    slowCall.release = new Promise((resolve) => {
      release = resolve;
    });
    await serve('one');
    const slow = (await client()).call('ph-rpc.demo.slow', {}, { timeoutMs: 50 });
    expect(await problemOf(slow)).toMatchObject({
      code: 'unavailable',
      detail: expect.stringContaining('in time'),
    });
    release();
  });

  it('when NATS goes away under it, and at once while NATS is away', async () => {
    const begun = new Promise<void>((resolve) => {
      slowCall.begun = resolve;
    });
    let release = () => {};
    slowCall.release = new Promise((resolve) => {
      release = resolve;
    });
    await serve('one');
    const rpc = await client();
    const slow = problemOf(rpc.call('ph-rpc.demo.slow', {}, { timeoutMs: 20_000 }));
    await begun;
    await nats.kill();
    expect((await slow).code).toBe('unavailable');
    expect((await problemOf(rpc.call('ph-rpc.demo.echo', {}))).detail).toBe('NATS is away');
    release();
  });

  it('until NATS is back', async () => {
    await serve('one');
    const rpc = await client();
    const links = [...open];
    await nats.kill();
    const back = Promise.all(
      links.map((link) => new Promise<void>((resolve) => link.watch((up) => up && resolve()))),
    );
    await nats.start();
    await back;
    await Promise.all(links.map((link) => link.connection.flush()));
    expect(await rpc.call('ph-rpc.demo.echo', { text: 'again' })).toMatchObject({ text: 'again' });
  });
});

describe('a server that closes', () => {
  it('answers the calls it has taken', async () => {
    const begun = new Promise<void>((resolve) => {
      slowCall.begun = resolve;
    });
    slowCall.release = begun.then(() => sleep(50));
    const app = await serve('one');
    const slow = (await client()).call('ph-rpc.demo.slow', {});
    await begun;
    await app.close();
    expect(await slow).toEqual({ done: true });
  });
});

describe('a reply', () => {
  it('that is not what Nest writes is an internal error, not an unhandled rejection', async () => {
    const { connection } = await connect('stranger');
    connection.subscribe('ph-rpc.stranger.call', {
      callback: (_, message) => void message.respond('not JSON'),
    });
    await connection.flush();
    expect((await problemOf((await client()).call('ph-rpc.stranger.call', {}))).code).toBe('internal');
  });

  it('goes to a subject of the caller', async () => {
    const { connection } = await connect('stranger');
    const reply = new Promise<string | undefined>((resolve) => {
      connection.subscribe('ph-rpc.stranger.call', { callback: (_, message) => resolve(message.reply) });
    });
    await connection.flush();
    const call = problemOf((await client()).call('ph-rpc.stranger.call', {}, { timeoutMs: 20 }));
    expect(await reply).toMatch(/^_INBOX\.caller\./);
    await call;
  });
});
