import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { coversFilter, ProblemError } from '@posthorn/contracts';
import {
  Collected,
  draftOf,
  eventually,
  openBus,
  prepareBus,
  type ServedBus,
  startBus,
  startTcpProxy,
  type TestBus,
} from '@posthorn/testing';
import fc from 'fast-check';
import type { BusEvent, Delivery, DurableHandler, DurableOptions } from '../port.js';
import { commonFilter } from './durable.js';

let process: ServedBus;
let counter = 0;

beforeAll(async () => {
  process = await startBus({ audiences: ['acme', 'beta'] });
});

afterAll(async () => process[Symbol.asyncDispose]());

/** Topics and a consumer that no other test uses. */
function own(more: Partial<DurableOptions> = {}) {
  const base = `test${++counter}`;
  const options: DurableOptions = {
    name: `${base}-consumer`,
    scope: 'local',
    audience: 'acme',
    filters: [`-.${base}.a`],
    backoff: [10, 20],
    ackWait: 5_000,
    ...more,
  };
  const publish = (n: number, topic = 'a', audience = 'acme') =>
    process.bus.publish(draftOf(`${base}.${topic}`, { n }, { audience, scope: 'local' }));
  return { base, options, publish };
}

const numberOf = (event: BusEvent) => event.message.n as number;
const ascending = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b);

async function consume(on: TestBus, options: DurableOptions, handler: DurableHandler) {
  const subscription = on.bus.consume(options, handler);
  await subscription.ready;
  return { subscription, [Symbol.asyncDispose]: () => subscription.close() };
}

/** How many events the consumer still has to have settled. */
async function open(options: DurableOptions): Promise<number> {
  const { num_pending, num_ack_pending } = await process.bus.jsm.consumers.info('PH_LOCAL', options.name);
  return num_pending + num_ack_pending;
}

/** Resolves once the server has taken every settlement. */
const settled = (options: DurableOptions) => eventually(async () => (await open(options)) === 0);

describe('a durable consumer', () => {
  it('gives each event to one of the processes that share its name', async () => {
    const { options, publish } = own();
    await using other = await openBus(process.nats);
    const heard = new Collected<{ by: string; n: number }>();
    const handler = (by: string) => async (event: BusEvent) => heard.add({ by, n: numberOf(event) });
    await using _one = await consume(process, options, handler('one'));
    await using _two = await consume(other, options, handler('two'));
    const numbers = Array.from({ length: 200 }, (_, n) => n);
    await Promise.all(numbers.map((n) => publish(n)));
    const all = await heard.until(200);
    expect(ascending(all.map(({ n }) => n))).toEqual(numbers);
    expect(new Set(all.map(({ by }) => by))).toEqual(new Set(['one', 'two']));
    await settled(options);
  });

  it('begins with what was stored before it existed', async () => {
    const { base, options, publish } = own();
    await publish(1);
    const heard = new Collected<BusEvent>();
    await using _ = await consume(process, options, async (event) => heard.add(event));
    const [event] = await heard.until(1);
    expect(event).toMatchObject({
      scope: 'local',
      instance: 'main',
      message: { n: 1 },
      topic: { name: `${base}.a` },
    });
  });

  it('tells which try it is and when the event was stored', async () => {
    const { options, publish } = own();
    const deliveries = new Collected<Delivery>();
    await using _ = await consume(process, options, async (_event, delivery) => {
      deliveries.add(delivery);
      if (delivery.tries === 1) throw new Error('once');
    });
    const before = BigInt(Date.now() - 1_000) * 1_000_000n;
    await publish(1);
    const [first, second] = await deliveries.until(2);
    expect([first!.tries, second!.tries]).toEqual([1, 2]);
    expect(first!.storedAt).toBe(second!.storedAt);
    expect(first!.storedAt > before).toBe(true);
  });

  it('skips topics that nobody handles', async () => {
    const { base, options, publish } = own();
    const heard = new Collected<BusEvent>();
    const filters = [`-.${base}.a`, `-.${base}.b.c`, `-.${base}.d.*`];
    await using _ = await consume(process, { ...options, filters }, async (event) => heard.add(event));
    for (const [n, topic] of ['x', 'a', 'b', 'b.x', 'b.c', 'd', 'd.1', 'd.1.2'].entries())
      await publish(n, topic);
    await heard.until(3);
    await settled({ ...options, filters });
    expect(ascending(heard.items.map(numberOf))).toEqual([1, 4, 6]);
  });

  it('hears one audience, or every one', async () => {
    const { options, publish } = own();
    const heard = new Collected<string>();
    const every = { ...options, name: `${options.name}-every`, audience: null };
    await using _one = await consume(process, options, async (event) => heard.add(`acme ${event.audience}`));
    await using _two = await consume(process, every, async (event) => heard.add(`every ${event.audience}`));
    await publish(1, 'a', 'beta');
    await publish(2, 'a', 'acme');
    await heard.until(3);
    expect([...heard.items].sort()).toEqual(['acme acme', 'every acme', 'every beta']);
  });

  it('takes more topics when it is bound again, and forgets none that another version handles', async () => {
    const { base, options, publish } = own();
    const heard = new Collected<string>();
    const handler = (by: string) => async (event: BusEvent) => heard.add(`${by} ${numberOf(event)}`);
    await using older = await consume(process, options, handler('older'));
    await publish(1);
    await heard.until(1);
    await settled(options);
    await publish(2, 'b');
    const filters = [`-.${base}.b`];
    await using _ = await consume(process, { ...options, filters, ackWait: 9_000 }, handler('newer'));
    await older.subscription.close();
    await publish(3, 'b');
    expect(await heard.until(3)).toEqual(['older 1', 'newer 2', 'newer 3']);
    const { config } = await process.bus.jsm.consumers.info('PH_LOCAL', options.name);
    expect(config).toMatchObject({ filter_subject: `ph.acme.local.main.-.${base}.*`, ack_wait: 9e9 });
  });

  it('is not taken from another instance or audience that has its name', async () => {
    const { options } = own();
    await using _ = await consume(process, options, async () => {});
    const other = process.bus.consume({ ...options, audience: null }, async () => {});
    await eventually(() =>
      process.seen.log.some(({ fields }) => String(fields.error).includes("is another's")),
    );
    await other.close();
  });

  it('needs a filter: without one it would acknowledge everything', () => {
    expect(() => process.bus.consume({ ...own().options, filters: [] }, async () => {})).toThrow(RangeError);
  });

  it.each([0, -1, 1.5, Number.NaN])('needs room for an event: maxInFlight is not %d', (maxInFlight) => {
    const options = {
      name: 'narrow',
      scope: 'local',
      audience: 'acme',
      filters: ['-.a'],
      maxInFlight,
    } as const;
    expect(() => process.bus.consume(options, async () => {})).toThrow(`maxInFlight is ${maxInFlight}`);
  });

  it('has no more events in work than it may', async () => {
    const { options, publish } = own({ maxInFlight: 3 });
    let working = 0;
    let most = 0;
    const done = new Collected<number>();
    await using _ = await consume(process, options, async (event) => {
      most = Math.max(most, ++working);
      await new Promise(setImmediate);
      working -= 1;
      done.add(numberOf(event));
    });
    await Promise.all(Array.from({ length: 30 }, (_, n) => publish(n)));
    await done.until(30);
    expect(most).toBeLessThanOrEqual(3);
  });
});

describe('a handler that takes its time', () => {
  it('and stops its process meanwhile is not cut off by a server that has many large events for it', async () => {
    const { base, options } = own();
    const text = 'x'.repeat(1024 * 1024 - 100);
    const draft = draftOf(`${base}.a`, { text }, { scope: 'local' });
    for (let n = 0; n < 100; n++) await process.bus.publish({ ...draft, id: `${base}-${n}` });
    const tries = new Collected<number>();
    await using _ = await consume(process, options, async (_event, delivery) => {
      if (tries.items.length === 0) for (const end = Date.now() + 1_500; Date.now() < end; );
      tries.add(delivery.tries);
    });
    expect(await tries.until(100)).toEqual(Array(100).fill(1));
  });

  it('keeps its event for longer than the wait for an acknowledgement', async () => {
    const { options, publish } = own({ ackWait: 300 });
    const starts = new Collected<number>();
    let finish = () => {};
    const waiting = new Promise<void>((resolve) => {
      finish = resolve;
    });
    await using _ = await consume(process, options, async (event) => {
      starts.add(numberOf(event));
      await waiting;
    });
    await publish(1);
    await starts.until(1);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    finish();
    await settled(options);
    expect(starts.items).toEqual([1]);
  });

  it('is waited for at the end, and acknowledged', async () => {
    const { options, publish } = own();
    const starts = new Collected<number>();
    let finish = () => {};
    const { subscription } = await consume(process, options, async (event) => {
      starts.add(numberOf(event));
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
    });
    await publish(1);
    await starts.until(1);
    let closed = false;
    const closing = subscription.close().then(() => {
      closed = true;
    });
    await process.nc.flush();
    expect(closed).toBe(false);
    finish();
    await closing;
    expect(await open(options)).toBe(0);
    await publish(2);
    expect(await open(options)).toBe(1);
    expect(starts.items).toEqual([1]);
  });

  it('and dies leaves its event to another process', async () => {
    const { options, publish } = own({ ackWait: 300 });
    await using link = await startTcpProxy(process.nats.port);
    const dying = await openBus({ url: `nats://127.0.0.1:${link.port}` });
    const heard = new Collected<string>();
    const { subscription } = await consume(dying, options, async () => {
      heard.add('dying');
      await new Promise(() => {});
    });
    await publish(1);
    await heard.until(1);
    link.cut();
    await using _ = await consume(process, options, async (_event, { tries }) =>
      heard.add(`heir, try ${tries}`),
    );
    expect(await heard.until(2)).toEqual(['dying', 'heir, try 2']);
    await settled(options);
    void subscription;
    await dying[Symbol.asyncDispose]();
  });
});

describe('a durable consumer is bound again', () => {
  it('after it was deleted', async () => {
    const { options, publish } = own();
    const heard = new Collected<number>();
    await using _ = await consume(process, options, async (event) => heard.add(numberOf(event)));
    await publish(1);
    await heard.until(1);
    await process.bus.jsm.consumers.delete('PH_LOCAL', options.name);
    await publish(2);
    await heard.until((numbers) => numbers.includes(2));
    expect(process.seen.log.map(({ message }) => message)).toContain('waiting for the consumer');
    expect(process.seen.log.map(({ message }) => message)).toContain('consumer bound');
  });

  it('after its stream was deleted and made anew, or the server restarted', async () => {
    await using one = await startBus();
    const heard = new Collected<number>();
    const options: DurableOptions = { ...own().options, filters: ['-.a'] };
    await using _ = await consume(one, options, async (event) => heard.add(numberOf(event)));
    const publish = (n: number) => one.bus.publish(draftOf('a', { n }, { scope: 'local' }));
    await publish(1);
    await heard.until(1);

    const back = (async () => {
      for await (const { type } of one.nc.status()) if (type === 'reconnect') return;
    })();
    await one.nats.kill();
    await one.nats.start();
    await back;
    await publish(2);
    await heard.until((numbers) => numbers.includes(2));

    await one.bus.jsm.streams.delete('PH_LOCAL');
    await prepareBus(one.nats);
    await publish(3);
    await heard.until((numbers) => numbers.includes(3));
  });

  it('and waits for a stream that does not exist yet', async () => {
    await using one = await startBus();
    await one.bus.jsm.streams.delete('PH_LOCAL');
    const subscription = one.bus.consume({ ...own().options, filters: ['-.a'] }, async () => {});
    await prepareBus(one.nats);
    await subscription.ready;
    await subscription.close();
  });

  it('unless it was closed: then it never gets ready', async () => {
    await using one = await startBus();
    await one.bus.jsm.streams.delete('PH_LOCAL');
    const subscription = one.bus.consume({ ...own().options, filters: ['-.a'] }, async () => {});
    await subscription.close();
    await expect(subscription.ready).rejects.toBeInstanceOf(ProblemError);
  });
});

describe('the common filter', () => {
  it.each([
    [['-.a'], '-.a'],
    [['-.a', '-.a'], '-.a'],
    [['-.a.b', '-.a.c'], '-.a.*'],
    [['-.a.x', '-.b.x'], '-.*.x'],
    [['-.a', '-.a.b'], '-.>'],
    [['-.community.join', '-.community.membership.invite'], '-.community.>'],
    [['-.community.join', '-.notification.external'], '-.*.*'],
    [['-.sync.>', '*.sync'], '*.>'],
    [['-.a.>', '-.a.b'], '-.a.>'],
    [['-.>', '-.a.b.c'], '-.>'],
    [['-.*.b', '-.a.b'], '-.*.b'],
    [['>', '-.a'], '>'],
  ])('of %j is %s', (filters, common) => {
    expect(commonFilter(filters)).toBe(common);
  });

  it('covers every one of them', () => {
    const tokens = fc.array(fc.constantFrom('-', '*', 'a', 'b'), { minLength: 1, maxLength: 4 });
    const filter = fc
      .tuple(tokens, fc.boolean())
      .map(([list, rest]) => [...list, ...(rest ? ['>'] : [])].join('.'));
    fc.assert(
      fc.property(fc.array(filter, { minLength: 1, maxLength: 4 }), (filters) => {
        const common = commonFilter(filters);
        for (const one of filters)
          expect([common, one, coversFilter(common, one)]).toEqual([common, one, true]);
      }),
    );
  });
});
