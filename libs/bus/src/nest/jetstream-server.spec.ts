import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Module, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Ctx, EventPattern, MessagePattern, Payload } from '@nestjs/microservices';
import { ownTopic, type TopicName } from '@posthorn/contracts';
import { Collected, draftOf, type ServedBus, startBus } from '@posthorn/testing';
import { EMPTY, of } from 'rxjs';
import { PermanentFailure } from '../settlement.js';
import { type EventPayload, JetStreamContext, JetStreamServer } from './jetstream-server.js';
import { SettlementFilter } from './settlement-filter.js';

let process: ServedBus;
let counter = 0;

beforeAll(async () => {
  process = await startBus();
});

afterAll(async () => process[Symbol.asyncDispose]());

/** A small service of one controller. */
async function serve(controller: Type, name = `service-${++counter}`) {
  @Module({ controllers: [controller] })
  class ServiceModule {}
  const strategy = new JetStreamServer(process.bus, {
    name,
    scope: 'local',
    audience: null,
    backoff: [10, 20],
  });
  const app = await NestFactory.createMicroservice(ServiceModule, { strategy, logger: false });
  app.useGlobalFilters(new SettlementFilter());
  await app.listen();
  return { app, name, strategy, [Symbol.asyncDispose]: () => app.close() };
}

const publish = (name: string, message: object) =>
  process.bus.publish(draftOf(name, message, { scope: 'local' }));
const join = (author: string) => publish('community:join', { author, target: 't', community: 'c' });
const open = async (name: string) => {
  const { num_pending, num_ack_pending } = await process.bus.jsm.consumers.info('PH_LOCAL', name);
  return num_pending + num_ack_pending;
};

describe('a handler with @EventPattern', () => {
  it('gets the payload of its topic, and everything else as context', async () => {
    const heard = new Collected<{ author: unknown; context: JetStreamContext }>();
    @Controller()
    class Handlers {
      @EventPattern<TopicName>('community:join')
      joined(@Payload() payload: EventPayload<'community:join'>, @Ctx() context: JetStreamContext) {
        heard.add({ author: payload.author, context });
      }
    }
    await using _ = await serve(Handlers);
    const { id, position } = await join('alice');
    const [{ author, context }] = (await heard.until(1)) as [{ author: unknown; context: JetStreamContext }];
    expect(author).toBe('alice');
    expect(context).toBeInstanceOf(JetStreamContext);
    expect(context.event).toMatchObject({
      id,
      position,
      audience: 'acme',
      topic: { name: 'community:join' },
    });
    expect(context.delivery.tries).toBe(1);
  });

  it('that throws gets its event again, also when it does so later or by an Observable', async () => {
    const tries = new Collected<string>();
    @Controller()
    class Handlers {
      @EventPattern<TopicName>('login:success')
      success(@Ctx() { delivery }: JetStreamContext) {
        tries.add(`sync ${delivery.tries}`);
        if (delivery.tries === 1) throw new Error('at once');
      }

      @EventPattern<TopicName>('login:failure')
      async failure(@Ctx() { delivery }: JetStreamContext) {
        tries.add(`async ${delivery.tries}`);
        await new Promise(setImmediate);
        if (delivery.tries === 1) throw new Error('later');
        return of(delivery.tries === 2 ? 'nothing' : 'more');
      }
    }
    await using _ = await serve(Handlers);
    await publish('login:success', {});
    await publish('login:failure', {});
    await tries.until(4);
    expect([...tries.items].sort()).toEqual(['async 1', 'async 2', 'sync 1', 'sync 2']);
  });

  it('that gives up has its reason in the dead letter', async () => {
    @Controller()
    class Handlers {
      @EventPattern<TopicName>('community:leave')
      left() {
        throw new PermanentFailure('managers_unknown', 'Nobody manages this community');
      }
    }
    await using one = await serve(Handlers);
    await publish('community:leave', { author: 'a', target: 't', community: 'c' });
    const consumer = await process.bus.js.consumers.get('PH_DEAD', {
      filter_subjects: `ph-dead.${one.name}`,
    });
    const letter = await consumer.next({ expires: 5_000 });
    expect(letter?.headers?.get('Posthorn-Dead-Code')).toBe('managers_unknown');
    expect(letter?.headers?.get('Posthorn-Dead-Reason')).toBe('Nobody manages this community');
  });

  it('is one of several: each runs, under whatever spelling, and all have to succeed', async () => {
    const runs = new Collected<string>();
    @Controller()
    class First {
      @EventPattern<TopicName>('mongodb:connectionAvailable')
      one() {
        runs.add('empty');
        return EMPTY;
      }

      @EventPattern<TopicName>('mongodb:connectionAvailable')
      async two(@Ctx() { delivery }: JetStreamContext) {
        await new Promise(setImmediate);
        runs.add(`second, try ${delivery.tries}`);
        if (delivery.tries === 1) throw new Error('once');
      }

      @EventPattern<string>('mongodb/connexionAvailable')
      alias() {
        runs.add('alias');
      }
    }
    await using _ = await serve(First);
    await publish('mongodb:connectionAvailable', {});
    expect(await runs.until(5)).toEqual(['empty', 'second, try 1', 'empty', 'second, try 2', 'alias']);
  });

  it('hears every target of a topic with a hidden parameter', async () => {
    const keys = new Collected<string | null>();
    @Controller()
    class Handlers {
      @EventPattern<TopicName>('usernotification:updated')
      updated(@Ctx() { event }: JetStreamContext) {
        keys.add(event.topic.key);
      }
    }
    await using _ = await serve(Handlers);
    for (const target of ['7', 'b.c']) {
      const topic = ownTopic('usernotification:updated', target);
      const message = { target, unread_count: 1, version: 1 };
      await process.bus.publish(draftOf(topic, message, { scope: 'local' }));
    }
    expect(await keys.until(2)).toEqual(['7', 'b.c']);
  });
});

describe('a service', () => {
  it('finishes what is in work before it is closed', async () => {
    const started = new Collected<string>();
    let finish = () => {};
    @Controller()
    class Handlers {
      @EventPattern<TopicName>('domain:invitations:sent')
      async sent() {
        started.add('sent');
        await new Promise<void>((resolve) => {
          finish = resolve;
        });
      }
    }
    const { app, name } = await serve(Handlers);
    await publish('domain:invitations:sent', { user: '1', domain: '2', emails: [] });
    await started.until(1);
    let closed = false;
    const closing = app.close().then(() => {
      closed = true;
    });
    await process.nc.flush();
    expect(closed).toBe(false);
    finish();
    await closing;
    expect(await open(name)).toBe(0);
  });

  it('without handlers takes nothing', async () => {
    @Controller()
    class Nothing {}
    await using one = await serve(Nothing);
    expect(() => one.strategy.unwrap()).toThrow('does not listen');
  });

  it('does not start with what is no topic, or wants a reply', async () => {
    @Controller()
    class NoTopic {
      @EventPattern<string>('community membership')
      handle() {}
    }
    @Controller()
    class Reply {
      @MessagePattern('community:join')
      handle() {}
    }
    await expect(serve(NoTopic)).rejects.toThrow('white space');
    await expect(serve(Reply)).rejects.toThrow('use @EventPattern');
  });
});
