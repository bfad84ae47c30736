import { describe, expect, it } from '@jest/globals';
import { ProblemError } from '@posthorn/contracts';
import { original } from './original-dialect.js';

const read = (frame: unknown, isBinary = false) =>
  original.read(Buffer.from(typeof frame === 'string' ? frame : JSON.stringify(frame)), isBinary);

describe('the dialect of the original', () => {
  it.each([
    [{ action: 'subscribe', topic: 'system/events' }],
    [{ action: 'unsubscribe', topic: 'system/events' }],
    [{ action: 'publish', topic: 'system/events', message: { n: 1 } }],
    [{ action: 'broadcast', message: {} }],
  ])('takes %j, as text or as bytes', (frame) => {
    expect(read(frame)).toEqual(frame);
    expect(read(frame, true)).toEqual(frame);
  });

  it('knows no member that the original did not have', () => {
    const frame = { action: 'publish', topic: 'a', message: {} };
    expect(read({ ...frame, id: 5, ref: {}, since: null, more: true })).toEqual(frame);
  });

  it.each([
    ['an action of ours', { action: 'ping' }],
    ['another of ours', { action: 'auth', token: 'a.b.c' }],
    ['an unknown action', { action: 'shout' }],
    ['no action', {}],
    ['no topic', { action: 'subscribe' }],
    ['a message that is no object', { action: 'publish', topic: 'a', message: 5 }],
  ])('passes over %s', (_, frame) => {
    expect(read(frame)).toBeUndefined();
  });

  it.each(['{', '', 'hello', '[]', 'null', '"subscribe"'])('does not bear %j', (text) => {
    expect(read(text)).toBeInstanceOf(ProblemError);
    expect(original.strikes).toBe(0);
  });

  it('tells nothing but the id of the connection', () => {
    const welcome = { connection: 'c-1', audience: 'acme', expires: null };
    expect(Buffer.from(original.welcome(welcome)).subarray(2).toString()).toBe('c-1');
    expect(original.answer({ action: 'error', code: 'forbidden' })).toBeUndefined();
  });
});
