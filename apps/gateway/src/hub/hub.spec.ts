import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { type Cursor, STREAMS } from '@posthorn/contracts';
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

function poll(filters: readonly string[], since?: Cursor): Poll {
  const poll = hub.poll({ audience: 'acme', filters, since, recent: 0, mayReceive: () => true });
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

describe('the hub', () => {
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
