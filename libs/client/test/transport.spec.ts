import { describe, expect, it, jest } from '@jest/globals';
import fc from 'fast-check';
import { Posthorn } from '../src/index.js';
import { Tokens } from '../src/tokens.js';
import { Lines } from '../src/transport.js';

describe('a stream', () => {
  it('gives each event once, wherever its text is divided, and none that was cut off', () => {
    const text = ': comment\r\n\r\ndata: {"a":1}\n\nid: 7\ndata:{"b":2}\ndata: more\n\ndata: {"cut":';
    fc.assert(
      fc.property(fc.array(fc.nat(text.length), { maxLength: 8 }), (cuts) => {
        const events: string[] = [];
        const lines = new Lines((data) => events.push(data));
        const places = [0, ...cuts.sort((a, b) => a - b), text.length];
        for (let i = 1; i < places.length; i++) lines.push(text.slice(places[i - 1], places[i]));
        expect(events).toEqual(['{"a":1}', '{"b":2}\nmore']);
      }),
    );
  });
});

describe('tokens', () => {
  it('are asked for once for all who wait, kept, and replaced when one is no longer good', async () => {
    let calls = 0;
    const tokens = new Tokens(async () => `t${++calls}`);
    expect(await Promise.all([tokens.get(), tokens.get()])).toEqual(['t1', 't1']);
    expect(await tokens.get()).toBe('t1');
    expect(await tokens.get('t1')).toBe('t2');
    expect(await tokens.get('t1')).toBe('t2');
  });

  it('that never come, or are none, are an error, and asked for again', async () => {
    jest.useFakeTimers();
    try {
      const answers = [new Promise<string>(() => {}), Promise.resolve(''), Promise.resolve('t')];
      const tokens = new Tokens(() => answers.shift()!);
      const failed = expect(tokens.get()).rejects.toMatchObject({ code: 'token_failed' });
      await jest.advanceTimersByTimeAsync(15_000);
      await failed;
      await expect(tokens.get()).rejects.toMatchObject({ code: 'token_failed' });
      expect(await tokens.get()).toBe('t');
    } finally {
      jest.useRealTimers();
    }
  });
});

/** A client on streams of `frames`, one after the other, with a gateway that answers anything else with `answer`. */
function clientOf(frames: readonly string[][], answer: () => Response, asked: string[] = []): Posthorn {
  const streams = frames.map((each) => each.map((frame) => `data: ${frame}\n\n`).join(''));
  return new Posthorn({
    url: 'https://events.example/',
    getToken: () => 't',
    transport: 'stream',
    fetch: async (url, init) => {
      asked.push(String(url));
      if (!String(url).endsWith('/v1/stream')) return answer();
      const text = streams.shift();
      const body = new ReadableStream({
        start(stream) {
          if (text) stream.enqueue(new TextEncoder().encode(text));
          init?.signal?.addEventListener('abort', () => stream.error(new Error('aborted')));
        },
      });
      return new Response(body);
    },
  });
}

const WELCOME = '{"action":"welcome","connection":"c","audience":"a","expires":null}';

describe('answers that are none of Posthorn', () => {
  it('do not end the client: after a frame that is none it connects anew', async () => {
    const client = clientOf([[WELCOME, '{"action":"message"}'], [WELCOME]], () => new Response('{}'));
    let welcomes = 0;
    await new Promise<void>((again) => {
      client.on('welcome', () => ++welcomes === 2 && again());
      client.on('error', () => {});
    });
    client.close();
    expect(client.state).toEqual({ status: 'closed' });
  });

  it('leave no publish without an end', async () => {
    const headers = { 'posthorn-event-id': '%' };
    const client = clientOf([[WELCOME]], () => new Response('', { headers }));
    await expect(client.publish('a', {}, { repeat: false })).rejects.toMatchObject({ code: 'unconfirmed' });
    client.close();
  });
});

it('calls go to the gateway, however their path begins', async () => {
  const asked: string[] = [];
  const client = clientOf([[WELCOME]], () => new Response('{}'), asked);
  await client.request('GET', 'v1/topic');
  await client.request('GET', '.example.org/v1/topic');
  await client.request('GET', '@example.org');
  client.close();
  expect(asked.filter((url) => !url.endsWith('/v1/stream'))).toEqual(
    ['v1/topic', '.example.org/v1/topic', '@example.org'].map((path) => `https://events.example/${path}`),
  );
});
