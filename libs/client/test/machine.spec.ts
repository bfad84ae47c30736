/** The machine, one event after the other: what the model cannot tell apart, or what has to be exact. */
import { describe, expect, it } from '@jest/globals';
import type { ServerFrame } from '../src/frame.js';
import {
  type Effect,
  type Event,
  type MachineOptions,
  newState,
  TIMES,
  transition,
  wakeAt,
} from '../src/machine.js';
import { newReader, SEEN_LIMIT, take } from '../src/place.js';

type Untimed<E> = E extends unknown ? Omit<E, 'now'> : never;

/** A machine whose time goes on only when told. */
class Driven {
  readonly state;
  readonly all: Effect[] = [];
  now = 0;

  constructor(options: Partial<MachineOptions> = {}) {
    const transports = ['websocket', 'stream'] as const;
    const limits = { publishTimeout: 90_000, queueLimit: 1_000, frameLimit: 65_536 };
    this.state = newState({ seed: 7, transports, ...limits, ...options });
  }

  happen(event: Untimed<Event>): Effect[] {
    const effects = [...transition(this.state, { ...event, now: this.now } as Event)];
    this.all.push(...effects);
    return effects;
  }

  /** Lets time pass, with a tick whenever one is due, and an answer to each ping unless the server is silent. */
  pass(ms: number, silent = false): Effect[] {
    const end = this.now + ms;
    const effects: Effect[] = [];
    for (;;) {
      this.now = Math.max(this.now, Math.min(end, wakeAt(this.state, this.now)));
      const pings = this.sent('ping').length;
      effects.push(...this.happen({ type: 'tick' }));
      if (this.sent('ping').length > pings && !silent) this.frame({ action: 'pong' });
      if (this.now >= end) return effects;
    }
  }

  /** Up to a connection's welcome. */
  connect(expiresIn?: number): number {
    this.happen({ type: 'start' });
    return this.answer(expiresIn);
  }

  /** Answers the attempt that there is. */
  answer(expiresIn?: number): number {
    const n = this.state.attempt!.n;
    this.happen({ type: 'token', n, token: `token-${n}` });
    this.happen({ type: 'key', n, key: 'key' });
    const frame = { action: 'welcome', connection: `c${n}`, audience: 'acme', expires: null } as const;
    this.happen({ type: 'frame', n, frame, expiresIn });
    return n;
  }

  frame(frame: ServerFrame): Effect[] {
    return this.happen({ type: 'frame', n: this.state.link!.n, frame });
  }

  subscribe(topic: string, listener: number, since?: string): Effect[] {
    return this.happen({ type: 'subscribe', topic, listener, since });
  }

  publish(ref: string, bytes = 10): Effect[] {
    const publish = { ref, topic: 'a', id: `id-${ref}`, text: '{}', bytes, repeat: true };
    return this.happen({ type: 'publish', publish });
  }

  /** Says `subscribed` to what was asked last. */
  begin(topic: string, position: string, recovered?: boolean): Effect[] {
    const ref = this.sent('subscribe').at(-1)!.ref;
    return this.frame({
      action: 'subscribed',
      topic,
      position,
      ref,
      ...(recovered === undefined ? {} : { recovered }),
    });
  }

  message(topic: string, sequence: number): Effect[] {
    const position = `e-${sequence}`;
    return this.frame({ action: 'message', topic, id: `${sequence}`, position, message: {} });
  }

  // biome-ignore lint/suspicious/noExplicitAny: frames of every kind
  sent(action: string): any[] {
    return this.all
      .flatMap((effect) => (effect.do === 'send' ? [JSON.parse(effect.text)] : []))
      .filter((frame) => frame.action === action);
  }
}

const kinds = (effects: readonly Effect[]) => effects.map((effect) => effect.do);

describe('subscriptions', () => {
  it('I1 I13: spellings and handlers of a topic share one subscription, and each gets an event once', () => {
    const machine = new Driven();
    machine.connect();
    machine.subscribe('a/b', 1);
    machine.subscribe('a:b', 2);
    machine.subscribe('personal.a.b', 3);
    machine.subscribe('personal.a/b', 4);
    expect(machine.sent('subscribe').map(({ topic }) => topic)).toEqual([
      'a/b',
      'personal.a.b',
      'personal.a/b',
    ]);
    const [{ ref }] = machine.sent('subscribe');
    machine.frame({ action: 'subscribed', topic: 'a/b', position: 'e-1', ref });
    expect(machine.message('a/b', 2)).toMatchObject([{ do: 'deliver', listeners: [1, 2] }]);
    expect(machine.message('a/b', 2)).toEqual([]);
    machine.happen({ type: 'unsubscribe', listener: 1 });
    expect(machine.sent('unsubscribe')).toEqual([]);
    machine.happen({ type: 'unsubscribe', listener: 2 });
    expect(machine.sent('unsubscribe')).toMatchObject([{ topic: 'a/b' }]);
  });

  it('I3: are resumed from the last event or the last pong, and tell what is lost before what follows', () => {
    const machine = new Driven();
    const n = machine.connect();
    machine.subscribe('a', 1);
    machine.begin('a', 'e-1');
    machine.message('a', 4);
    machine.frame({ action: 'pong', position: 'e-9~2.-.x' });
    machine.happen({ type: 'gone', n, code: 1006 });
    machine.pass(TIMES.backoff);
    machine.answer();
    expect(machine.sent('subscribe').at(-1)).toMatchObject({ topic: 'a', since: 'e-9' });
    const told = machine.begin('a', 'e-20', false);
    expect(told).toEqual([
      { do: 'gap', listeners: [1], gap: { topic: 'a', since: 'e-9', position: 'e-20' } },
    ]);
    expect(kinds(machine.message('a', 21))).toEqual(['deliver']);
  });

  it('I7: a place is asked for as patterns see more, and what they have seen is forgotten behind it', () => {
    const machine = new Driven();
    machine.connect();
    machine.subscribe('a.*', 1);
    machine.begin('a.*', 'e-0');
    for (let i = 1; i <= 300; i++) machine.message('a/x', i);
    expect(machine.sent('ping')).toEqual([]);
    machine.pass(TIMES.soon, true);
    expect(machine.sent('ping')).toHaveLength(1);
    const { seen } = [...machine.state.topics.values()][0]!.groups[0]!.reader;
    expect(seen!.size).toBe(300);
    machine.frame({ action: 'pong', position: 'e-298' });
    expect([...seen!]).toEqual([299, 300]);
    const reader = newReader('e-0', true);
    for (let i = 1; i <= SEEN_LIMIT + 10; i++) take(reader, `e-${i}`);
    expect(reader.seen!.size).toBe(SEEN_LIMIT);
  });
});

describe('publishes', () => {
  it('I5: that were sent are given up well before the server forgets their id, those that were not are known not to be stored', () => {
    const machine = new Driven({ publishTimeout: 600_000 });
    const n = machine.connect();
    machine.publish('1');
    machine.happen({ type: 'gone', n, code: 1006 });
    machine.publish('2');
    machine.happen({ type: 'network', online: false });
    const ends = machine.pass(600_000).filter((effect) => effect.do === 'rejected');
    expect(ends).toMatchObject([
      { ref: '1', error: { code: 'unconfirmed' } },
      { ref: '2', error: { code: 'unsent' } },
    ]);
    expect(TIMES.repeat + 2 * TIMES.pong).toBeLessThan(120_000);
  });

  it('I6: leave in order, and one that is refused for the moment holds back the next', () => {
    const machine = new Driven();
    machine.publish('1');
    machine.publish('2');
    machine.connect();
    machine.frame({ action: 'error', code: 'rate_limited', detail: '', ref: '1' });
    machine.publish('3');
    expect(machine.sent('publish').map(({ ref }) => ref)).toEqual(['1', '2']);
    machine.pass(10_000);
    expect(machine.sent('publish').map(({ ref }) => ref)).toEqual(['1', '2', '1', '3']);
    expect(new Set(machine.sent('publish').map(({ id }) => id)).size).toBe(3);
  });

  it('I7: wait up to a limit; what is too large for a frame goes by HTTP', () => {
    const machine = new Driven({ queueLimit: 2 });
    machine.publish('1');
    machine.publish('2', 70_000);
    expect(machine.publish('3')).toMatchObject([{ do: 'rejected', error: { code: 'queue_full' } }]);
    machine.connect();
    expect(machine.sent('publish').map(({ ref }) => ref)).toEqual(['1']);
    expect(machine.all.filter((effect) => effect.do === 'post')).toMatchObject([{ publish: { ref: '2' } }]);
  });
});

describe('connections', () => {
  it('I8: are pinged, and given up where nothing comes; a page that comes back asks at once', () => {
    const machine = new Driven();
    const n = machine.connect();
    machine.pass(TIMES.ping + TIMES.pong);
    expect(machine.sent('ping')).toHaveLength(2);
    machine.happen({ type: 'page', visible: false });
    machine.happen({ type: 'page', visible: true });
    expect(machine.sent('ping')).toHaveLength(3);
    expect(machine.pass(TIMES.doubt - 1, true)).toEqual([]);
    expect(machine.pass(1, true)).toContainEqual({ do: 'drop', n });
    // A process that stood still has not read yet what came meanwhile.
    const late = new Driven();
    late.connect();
    late.happen({ type: 'page', visible: true });
    late.now += 3_600_000;
    expect(late.happen({ type: 'tick' })).toEqual([]);
    late.frame({ action: 'pong' });
    expect(late.state.link).toBeDefined();
  });

  it('I9: end with `close`, which leaves no timer and tells everybody who waits', () => {
    const machine = new Driven();
    const n = machine.connect();
    machine.subscribe('a', 1);
    machine.publish('1');
    expect(machine.happen({ type: 'close' })).toMatchObject([
      { do: 'drop', n },
      { do: 'rejected', ref: '1', error: { code: 'closed' } },
      { do: 'ended', listeners: [1], error: { code: 'closed' } },
      { do: 'state', state: { status: 'closed' } },
    ]);
    expect(wakeAt(machine.state, machine.now)).toBe(Number.POSITIVE_INFINITY);
    expect(machine.publish('2')).toMatchObject([{ do: 'rejected', error: { code: 'closed' } }]);
    expect(machine.happen({ type: 'close' })).toEqual([]);
  });

  it('I10: are tried one at a time, later with each failure, and when the server says', () => {
    const machine = new Driven({ transports: ['websocket'] });
    machine.happen({ type: 'start' });
    const waits: number[] = [];
    for (let i = 0; i < 12; i++) {
      const failure = { code: 'network' as const, detail: '' };
      machine.happen({ type: 'failed', n: machine.state.attempt!.n, failure });
      expect(machine.state.attempt).toBeUndefined();
      waits.push(machine.state.retryAt! - machine.now);
      machine.pass(waits[i]!);
    }
    waits.forEach((wait, i) => {
      expect(wait).toBeLessThanOrEqual(Math.min(TIMES.longest, TIMES.backoff * 2 ** i));
    });
    const failure = { code: 'unavailable' as const, detail: '', status: 503, retryAfter: 50_000 };
    machine.happen({ type: 'failed', n: machine.state.attempt!.n, failure });
    machine.happen({ type: 'page', visible: true });
    expect(machine.pass(49_999)).toEqual([]);
    expect(kinds(machine.pass(1))).toContain('token');
    const n = machine.answer();
    machine.frame({ action: 'reconnect', after_ms: 1_234 });
    machine.happen({ type: 'gone', n, code: 1012 });
    expect(machine.state.retryAt).toBe(machine.now + 1_234);
  });

  it('I10: change to a stream when sockets are refused while HTTP works, and try a socket again later', () => {
    const machine = new Driven();
    machine.happen({ type: 'start' });
    for (let i = 0; i < 2; i++) {
      const { n } = machine.state.attempt!;
      machine.happen({ type: 'token', n, token: 't' });
      machine.happen({ type: 'key', n, key: 'k' });
      machine.happen({ type: 'gone', n, code: 1006 });
      machine.pass(2 * TIMES.backoff);
    }
    const stream = machine.answer();
    expect(machine.state.link).toMatchObject({ n: stream, transport: 'stream' });
    for (let i = 0; i < TIMES.upgrade / 10_000; i++) {
      machine.pass(10_000);
      if (machine.state.attempt) break;
      machine.frame({ action: 'pong', position: 'e-1' });
    }
    const socket = machine.answer();
    expect(machine.all).toContainEqual({ do: 'drop', n: stream });
    expect(machine.state.link).toMatchObject({ n: socket, transport: 'websocket' });
  });

  it('I11: the same seed and events give the same effects', () => {
    const run = () => {
      const machine = new Driven();
      const n = machine.connect();
      machine.subscribe('a.*', 1);
      machine.publish('1');
      machine.happen({ type: 'gone', n, code: 1006 });
      machine.pass(100_000);
      return machine.all;
    };
    expect(run()).toEqual(run());
  });

  it('I12: renew their token ahead of its end, and never use one that was refused', () => {
    const machine = new Driven();
    const n = machine.connect(300_000);
    machine.pass(239_999);
    expect(machine.all.filter((effect) => effect.do === 'token')).toHaveLength(1);
    expect(machine.pass(1)).toContainEqual({ do: 'token', n, not: `token-${n}` });
    machine.happen({ type: 'token', n, token: 'next' });
    expect(machine.sent('auth')).toMatchObject([{ token: 'next' }]);
    machine.frame({ action: 'error', code: 'token_expired', detail: '' });
    machine.happen({ type: 'gone', n, code: 4401 });
    machine.pass(TIMES.backoff);
    expect(machine.all.at(-2)).toEqual({ do: 'token', n: machine.state.attempt!.n, not: 'next' });
  });
});
