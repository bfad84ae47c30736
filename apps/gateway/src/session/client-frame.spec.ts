import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { MalformedFrame, parseClientFrame } from './client-frame.js';

const parse = (frame: unknown) => parseClientFrame(JSON.stringify(frame));

describe('parseClientFrame', () => {
  it.each([
    [{ action: 'subscribe', topic: 'system/events' }],
    [{ action: 'subscribe', topic: 'system/events', since: 'x-1', ref: '1' }],
    [{ action: 'unsubscribe', topic: 'system/events' }],
    [{ action: 'publish', topic: 'system/events', message: {}, id: 'a', ref: '' }],
    [{ action: 'broadcast', message: { nested: [1, null] } }],
    [{ action: 'auth', token: 'a.b.c' }],
    [{ action: 'ping' }],
  ])('takes %j as it is', (frame) => {
    expect(parse(frame)).toEqual(frame);
  });

  it.each([
    ['not JSON', '{', ''],
    ['an array', '[]', ''],
    ['null', 'null', ''],
    ['no action', '{}', '/action'],
    ['an unknown action', '{"action":"shout"}', '/action'],
    ['an action of another type', '{"action":["ping"]}', '/action'],
    ['no topic', '{"action":"subscribe"}', '/topic'],
    ['a topic that is no text', '{"action":"publish","topic":5,"message":{}}', '/topic'],
    ['no message', '{"action":"publish","topic":"a"}', '/message'],
    ['a message that is an array', '{"action":"publish","topic":"a","message":[]}', '/message'],
    ['a message that is a text', '{"action":"broadcast","message":"a"}', '/message'],
    ['a message that is null', '{"action":"broadcast","message":null}', '/message'],
    ['an id that is a number', '{"action":"publish","topic":"a","message":{},"id":1}', '/id'],
    ['a ref that is an object', '{"action":"ping","ref":{}}', '/ref'],
    ['a ref without end', `{"action":"ping","ref":"${'r'.repeat(257)}"}`, '/ref'],
    ['no token', '{"action":"auth"}', '/token'],
    [
      'a message of a thousand levels',
      `{"action":"broadcast","message":{"a":${'['.repeat(1e3)}${']'.repeat(1e3)}}}`,
      '/message',
    ],
  ])('says where %s is wrong', (_, text, path) => {
    const error = thrownBy(() => parseClientFrame(text));
    expect(error).toBeInstanceOf(MalformedFrame);
    expect(error).toMatchObject({ code: 'request_invalid', errors: [{ path }] });
  });

  it('keeps the ref of a frame that is wrong elsewhere, so that the client knows which one it was', () => {
    expect(thrownBy(() => parse({ action: 'publish', topic: '', message: {}, ref: '7' }))).toMatchObject({
      ref: '7',
    });
  });

  it('throws nothing but MalformedFrame, whatever comes', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.object().map((o) => JSON.stringify(o)),
        ),
        (text) => {
          try {
            parseClientFrame(text);
          } catch (error) {
            expect(error).toBeInstanceOf(MalformedFrame);
          }
        },
      ),
    );
  });
});

function thrownBy(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
