import { describe, expect, it } from '@jest/globals';
import type { BusEvent } from '@posthorn/bus';
import { type Cursor, parsePattern, parseTopic, type Target } from '@posthorn/contracts';
import { Level } from '@posthorn/service';
import { Subscription, Subscriptions } from './subscriptions.js';

const at = (sequence: number) => ({ epoch: 'e', sequence });
const from = (sequence: number) => ({ position: at(sequence), recovered: true });

/** A connection's subscriptions, and what each of them delivers of the events that all of them hear. */
function connection() {
  const all = new Subscriptions(new Level());
  const delivered: string[] = [];
  const patterns: Subscription[] = [];
  return {
    delivered,
    subscribe(target: Target, since?: Cursor): Subscription {
      const subscription = new Subscription(target, target.name, since);
      all.add(subscription);
      if ('filters' in target) patterns.push(subscription);
      return subscription;
    },
    unsubscribe: (subscription: Subscription) => all.remove(subscription),
    /** An event as patterns hear it; the topic's own subscription gets it from its feed. */
    hear(name: string, sequence: number): void {
      const { path } = parseTopic(name);
      const event = { path, position: at(sequence) } as BusEvent;
      for (const pattern of patterns) {
        if (pattern.start && sequence > pattern.start.position.sequence) {
          all.pass(event, pattern, () => delivered.push(`${pattern.target.name}:${sequence}`));
        }
      }
    },
  };
}

describe('Subscriptions', () => {
  it('leave an event to the subscription of its topic, from where that begins', () => {
    const { subscribe, hear, delivered } = connection();
    subscribe(parsePattern('news.>')).begin(from(0));
    const exact = subscribe(parseTopic('news/sport'));
    exact.begin(from(5));
    hear('news/sport', 5);
    hear('news/sport', 6);
    hear('news/art', 7);
    expect(delivered).toEqual(['news.>:5', 'news.>:7']);
  });

  it('decide about what comes while that is starting once its beginning is known', () => {
    const { subscribe, hear, delivered } = connection();
    subscribe(parsePattern('news.>')).begin(from(0));
    const exact = subscribe(parseTopic('news/sport'));
    for (const sequence of [1, 2, 3]) hear('news/sport', sequence);
    expect(delivered).toEqual([]);
    exact.begin(from(2));
    expect(delivered).toEqual(['news.>:1', 'news.>:2']);
  });

  it('deliver what waited for a subscription that could not start', () => {
    const { subscribe, unsubscribe, hear, delivered } = connection();
    subscribe(parsePattern('news.>')).begin(from(0));
    const exact = subscribe(parseTopic('news/sport'));
    hear('news/sport', 1);
    unsubscribe(exact);
    hear('news/sport', 2);
    expect(delivered).toEqual(['news.>:1', 'news.>:2']);
  });

  it('leave an event that several patterns take to the oldest that has begun before it', () => {
    const { subscribe, unsubscribe, hear, delivered } = connection();
    const oldest = subscribe(parsePattern('news.>'));
    const second = subscribe(parsePattern('*.sport'));
    second.begin(from(0));
    hear('news/sport', 1);
    oldest.begin(from(1));
    hear('news/sport', 2);
    unsubscribe(oldest);
    hear('news/sport', 3);
    expect(delivered).toEqual(['*.sport:1', 'news.>:2', '*.sport:3']);
  });

  it('deliver no event of a topic that its own subscription has been given before', () => {
    const { subscribe, hear, delivered } = connection();
    subscribe(parsePattern('news.>'), at(1)).begin(from(1));
    subscribe(parseTopic('news/sport'), at(5)).begin(from(5));
    hear('news/sport', 3);
    hear('news/art', 4);
    expect(delivered).toEqual(['news.>:4']);
  });

  it('deliver what the topic of a lost resumption has left', () => {
    const { subscribe, hear, delivered } = connection();
    subscribe(parsePattern('news.>'), at(1)).begin(from(1));
    subscribe(parseTopic('news/sport'), at(2)).begin({ position: at(5), recovered: false });
    hear('news/sport', 4);
    hear('news/sport', 6);
    expect(delivered).toEqual(['news.>:4']);
  });
});
