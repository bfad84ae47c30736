import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type AsyncMicroserviceOptions, Ctx, EventPattern, Payload } from '@nestjs/microservices';
import type { TopicName } from '@posthorn/contracts';
import { Collected, freePort, prepareBus, startNats, type TestNats } from '@posthorn/testing';
import type { DurableSubscription } from '../port.js';
import { connectPubSub, type PubSub } from '../pubsub.js';
import { type EventPayload, JetStreamContext, JetStreamServer } from './jetstream-server.js';
import { InjectPubSub, PosthornModule, PUBSUB } from './posthorn.module.js';
import { SettlementFilter } from './settlement-filter.js';

let nats: TestNats;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats, { audiences: ['acme', 'beta'] });
});

afterAll(async () => nats[Symbol.asyncDispose]());

const options = (source: string) => ({ servers: nats.url, audience: 'acme', source });

@Injectable()
class Messages {
  constructor(@InjectPubSub() readonly pubsub: PubSub) {}
}

@Module({ providers: [Messages] })
class MessagesModule {}

describe('PosthornModule', () => {
  it('injects one PubSub everywhere, and closes it with the application', async () => {
    @Module({ imports: [PosthornModule.forRoot(options('messages')), MessagesModule] })
    class AppModule {}
    const app = await NestFactory.createApplicationContext(AppModule, { logger: false });
    const { pubsub } = app.get(Messages, { strict: false });
    expect(app.get(PUBSUB)).toBe(pubsub);
    await pubsub.global.topic('message:stored').publish({ _id: 1 });
    await app.close();
    await expect(pubsub.global.topic('message:stored').publish()).rejects.toMatchObject({
      code: 'unavailable',
    });
  });

  it('takes its options from other providers', async () => {
    @Injectable()
    class Configuration {
      readonly bus = options('configured');
    }
    @Module({ providers: [Configuration], exports: [Configuration] })
    class ConfigurationModule {}
    const posthorn = PosthornModule.forRootAsync({
      imports: [ConfigurationModule],
      inject: [Configuration],
      useFactory: async ({ bus }: Configuration) => bus,
    });
    @Module({ imports: [posthorn] })
    class AppModule {}
    const app = await NestFactory.createApplicationContext(AppModule, { logger: false });
    await app.get<PubSub>(PUBSUB).ready;
    await app.close();
  });

  it('starts and ends while the bus is away', async () => {
    const servers = `127.0.0.1:${await freePort()}`;
    @Module({ imports: [PosthornModule.forRoot({ ...options('early'), servers })] })
    class AppModule {}
    const app = await NestFactory.createApplicationContext(AppModule, { logger: false });
    const waiting = app.get<PubSub>(PUBSUB).local.topic('a').publish();
    await Promise.all([expect(waiting).rejects.toMatchObject({ code: 'unavailable' }), app.close()]);
  });
});

describe('a JetStreamServer on a PubSub', () => {
  /** An application with its own audience, or several processes of one. */
  async function serve(audience: string, heard: Collected<string>, servers = nats.url) {
    @Controller()
    class Handlers {
      @EventPattern<TopicName>('community:join')
      joined(@Payload() { target }: EventPayload<'community:join'>, @Ctx() { event }: JetStreamContext) {
        heard.add(`${audience} ${event.topic.name} ${target}`);
      }

      @EventPattern<TopicName>('community:leave')
      left(@Payload() { target }: EventPayload<'community:leave'>) {
        heard.add(`${audience} left ${target}`);
      }
    }
    @Module({
      imports: [PosthornModule.forRoot({ servers, audience, source: 'mailer' })],
      controllers: [Handlers],
    })
    class AppModule {}
    const app = await NestFactory.createMicroservice<AsyncMicroserviceOptions>(AppModule, {
      inject: [PUBSUB],
      useFactory: (pubsub: PubSub) => ({
        strategy: new JetStreamServer(pubsub, { name: 'mailer', scope: 'local' }),
      }),
      logger: false,
    });
    app.useGlobalFilters(new SettlementFilter());
    await app.listen();
    const ready = () => app.unwrap<DurableSubscription>().ready;
    return { app, ready, [Symbol.asyncDispose]: () => app.close() };
  }

  it('shares its events with the processes of its name, and with no other audience', async () => {
    const heard = new Collected<string>();
    await using one = await serve('acme', heard);
    await using two = await serve('acme', heard);
    await using other = await serve('beta', heard);
    for (const { ready } of [one, two, other]) await ready();
    const publisher = connectPubSub(options('community'));
    const community = { author: 'a', community: 'c' };
    for (const target of ['1', '2', '3', '4'])
      await publisher.local.topic('community:join').publish({ ...community, target });
    await publisher.local.topic('community:leave').publish({ ...community, target: '1' });
    await publisher.close();
    const expected = ['1', '2', '3', '4'].map((target) => `acme community:join ${target}`);
    expect([...(await heard.until(5))].sort()).toEqual([...expected, 'acme left 1']);
  });

  it('listens before the bus is there, and gets its events once it is', async () => {
    await using late = await startNats();
    const heard = new Collected<string>();
    await using service = await serve('acme', heard, late.url);
    await prepareBus(late);
    await service.ready();
    const target = 'somebody';
    await service.app
      .get<PubSub>(PUBSUB)
      .local.topic('community:leave')
      .publish({ author: 1, community: 2, target });
    expect(await heard.until(1)).toEqual(['acme left somebody']);
  });

  it('refuses a PubSub that is none of the SDK', () => {
    const fake = { local: {}, global: {} } as unknown as PubSub;
    expect(() => new JetStreamServer(fake, { name: 'n', scope: 'local' })).toThrow('connectPubSub');
  });
});
