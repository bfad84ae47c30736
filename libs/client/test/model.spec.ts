/**
 * The machine against a simulated network and a small model of the gateway's contract, in every order of events that
 * fast-check thinks of. The model knows nothing of the machine: it keeps one log, gives each connection what it asks
 * for, and forgets, delays, cuts, expires and drains as told. What holds for every run are the invariants of SPEC.md.
 */
import { describe, it } from '@jest/globals';
import fc from 'fast-check';
import { SimulatedClient, type Step } from './simulation.js';

const topic = fc.constantFrom('a/0', 'a/1', 'b');
const heard = fc.constantFrom('a/0', 'a/1', 'b', 'a.*', '>', '__broadcast__');

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('store' as const), topic }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('broadcast' as const) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('publish' as const), topic }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('subscribe' as const), topic: heard, rewind: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('unsubscribe' as const), which: fc.nat(10) }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      ms: fc.constantFrom(1, 20, 300, 3_000, 30_000),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('cut' as const),
      code: fc.constantFrom(1006, 1012, 4408, 4409, 1008, 4401),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drain' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('stall' as const), on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('block sockets' as const), on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('outage' as const), on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('refuse' as const), times: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop subscription' as const), which: fc.nat(10) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('token ends' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('tokens fail' as const), on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('page' as const), visible: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('network' as const), online: fc.boolean() }) },
);

function hold(transports: readonly ('websocket' | 'stream')[], numRuns: number): void {
  fc.assert(
    fc.property(fc.integer(), fc.array(step, { minLength: 5, maxLength: 60 }), (seed, steps) => {
      const client = new SimulatedClient(seed, transports);
      for (const one of steps) client.take(one);
      client.calmDown();
      client.check();
      client.close();
    }),
    { numRuns },
  );
}

describe('in whatever order things happen', () => {
  it('I1 I2 I3 I4 I5 I6 I9: events come once and in order, publishes end once, nothing is left, on sockets', () => {
    hold(['websocket'], 800);
  });

  it('I1 I2 I3 I4 I5 I6 I9: the same where sockets are blocked now and then', () => {
    hold(['websocket', 'stream'], 800);
  });

  it('I1 I2 I3 I4 I5 I6 I9: the same on streams alone', () => {
    hold(['stream'], 800);
  });
});

describe('orders that random runs have found', () => {
  const run = (seed: number, steps: readonly Step[]) => {
    const client = new SimulatedClient(seed, ['websocket']);
    for (const one of steps) client.take(one);
    client.calmDown();
    client.check();
    client.close();
  };

  it('I1 I2: what a topic that was left still brings is not delivered ahead of what a pattern missed', () => {
    run(-950392267, [
      { kind: 'subscribe', topic: 'a/0', rewind: true },
      { kind: 'store', topic: 'a/0' },
      { kind: 'wait', ms: 300 },
      { kind: 'unsubscribe', which: 0 },
      { kind: 'subscribe', topic: '>', rewind: true },
      { kind: 'subscribe', topic: '>', rewind: false },
      { kind: 'publish', topic: 'a/0' },
      { kind: 'store', topic: 'a/0' },
      { kind: 'subscribe', topic: 'b', rewind: false },
    ]);
  });

  it('I3: broadcasts that were asked for from one place are had from an earlier one on another connection', () => {
    run(-152903811, [
      { kind: 'wait', ms: 30_000 },
      { kind: 'broadcast' },
      { kind: 'subscribe', topic: '__broadcast__', rewind: true },
      { kind: 'publish', topic: 'a/0' },
      { kind: 'broadcast' },
      { kind: 'subscribe', topic: '__broadcast__', rewind: true },
    ]);
  });

  it('I3: a broadcast between the question and its answer comes after the answer', () => {
    run(1625900815, [
      { kind: 'store', topic: 'a/0' },
      { kind: 'wait', ms: 30_000 },
      { kind: 'broadcast' },
      { kind: 'subscribe', topic: '__broadcast__', rewind: false },
      { kind: 'publish', topic: 'a/0' },
      { kind: 'wait', ms: 300 },
      { kind: 'subscribe', topic: '__broadcast__', rewind: true },
      { kind: 'store', topic: 'a/0' },
      { kind: 'broadcast' },
    ]);
  });
});
