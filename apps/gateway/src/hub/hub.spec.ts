import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { type Cursor, parseCursor, STREAMS } from '@posthorn/contracts';
import { Tally } from '@posthorn/service';
import { Collected, draftOf, eventually, prepareBus, type ServedBus, startBus } from '@posthorn/testing';
import type { FeedEvent } from './feed.js';
import { Hub } from './hub.js';
import type { Poll } from './poll.js';
import { Turn } from './turn.js';

let served: ServedBus;
let hub: Hub;
/** Pages that were read from the store. */
let pages: number;
let polls: Poll[];

beforeEach(async () => {
  served = await startBus();
  pages = 0;
  polls = [];
  hub = new Hub({
    bus: served.bus,
    turn: new Turn(),
    delivered: new Tally(),
    retention: () => undefined,
    resumed() {},
    pageRead: () => pages++,
  });
});

afterEach(async () => {
  for (const poll of polls) poll.end();
  hub.close();
  await served[Symbol.asyncDispose]();
});

function poll(filters: readonly string[], since?: Cursor, owner = 'ann'): Poll {
  const poll = hub.poll({ audience: 'acme', owner, filters, since, recent: 0, mayReceive: () => true });
  polls.push(poll);
  return poll;
}

function follow(filters: readonly string[]) {
  const heard = new Collected<FeedEvent>();
  const reader = { take: heard.add, room: () => undefined, broken() {} };
  const stream = hub.follow({ audience: 'acme', filters, since: undefined, mayReceive: () => true, reader });
  const started = stream.started.then(() => stream.begin());
  return { heard, started, close: () => stream.close() };
}

const channels = (from: number, count: number) => Array.from({ length: count }, (_, i) => `-.c${from + i}`);

describe('the hub', () => {
  it('keeps no more than so many feeds for polls that have ended, of each owner', async () => {
    for (let i = 0; i < 10; i++) {
      poll(channels(i * 128, 128)).end();
    }
    expect(hub.size).toBe(512);
    poll(channels(0, 128), undefined, 'bob').end();
    expect(hub.size).toBe(640);
    // The latest are the ones that are kept.
    poll(channels(9 * 128, 128)).end();
    expect(hub.size).toBe(640);
  });

  it('gives a poll what lies before its windows, on many topics, out of pages of a bounded size', async () => {
    const body = 'x'.repeat(10_000);
    const filters = channels(0, 64);
    const since = await served.bus.horizon('global');
    for (let i = 0; i < 192; i++) await served.bus.publish(draftOf(`c${i % 64}`, { n: i, body }));
    let cursor: Cursor = since;
    for (let n = 0; n < 192; n++) {
      const { event, place, recovered } = await poll(filters, cursor).answer;
      expect({ n: event?.message.n, recovered }).toEqual({ n, recovered: true });
      cursor = parseCursor(place!)!;
    }
    // No page was read twice: one for each event, and one for the end of each topic.
    expect(pages).toBeLessThanOrEqual(192 + 64);
  });

  it('waits quietly, for polls and streams, where the stream was made anew', async () => {
    await served.bus.publish(draftOf('news', { n: 1 }));
    const { epoch } = await served.bus.horizon('global');
    // Holds the feed.
    await poll(['-.news'], { epoch, sequence: 0 }).answer;
    await served.bus.jsm.streams.delete(STREAMS.global.name);
    await prepareBus(served.nats);
    await eventually(async () => (await served.bus.horizon('global')).epoch !== epoch);
    pages = 0;
    const { answer } = poll(['-.news']);
    const stream = follow(['-.news']);
    await stream.started;
    await sleep(500);
    expect(pages).toBeLessThan(5);
    await served.bus.publish(draftOf('news', { n: 2 }));
    expect(await answer).toMatchObject({ event: { message: { n: 2 } }, recovered: true });
    expect(await stream.heard.until(1)).toMatchObject([{ message: { n: 2 } }]);
    stream.close();
  });
});
