import { describe, expect, it } from '@jest/globals';
import { Ledger, payloadTemplate, publisherOf, sequenceOf } from './ledger.mjs';

describe('A ledger', () => {
  const taken = (...sequences: number[]): Ledger => {
    const ledger = new Ledger(1);
    for (const sequence of sequences) ledger.take(0, sequence);
    return ledger;
  };

  it('has nothing to report where every message came once and in order', () => {
    expect(taken(0, 1, 2)).toMatchObject({ received: 3, doubled: 0, late: 0 });
    expect(taken(0, 1, 2).missing(0, 3)).toBe(0);
  });

  it('reports a gap', () => {
    expect(taken(0, 1, 4).missing(0, 5)).toBe(2);
  });

  it('reports what is missing at the end', () => {
    expect(taken(0, 1).missing(0, 5)).toBe(3);
  });

  it('reports a double, at once or later', () => {
    expect(taken(0, 1, 1, 2, 0)).toMatchObject({ received: 3, doubled: 2 });
  });

  it('reports a message that came after a later one, and not that it is missing', () => {
    const ledger = taken(0, 2, 1);
    expect(ledger).toMatchObject({ received: 3, doubled: 0, late: 1 });
    expect(ledger.missing(0, 3)).toBe(0);
  });

  it('counts each publisher by itself', () => {
    const ledger = new Ledger(2);
    ledger.take(0, 0);
    ledger.take(1, 0);
    ledger.take(1, 2);
    expect([ledger.missing(0, 1), ledger.missing(1, 3), ledger.doubled]).toEqual([0, 1, 0]);
  });

  it('reads the number of a message off the end of its payload', () => {
    const payload = Buffer.from(payloadTemplate(128).replace('##########', '0700000042'));
    expect(payload).toHaveLength(128);
    expect(JSON.parse(payload.toString())).toHaveProperty('seq', '0700000042');
    expect([publisherOf(payload, 128), sequenceOf(payload, 128)]).toEqual([7, 42]);
    expect(sequenceOf(Buffer.from('{"pad":"no number here"}'), 24)).toBeNaN();
  });
});
