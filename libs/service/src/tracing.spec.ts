import { describe, expect, it } from '@jest/globals';
import { ConfigError, readConfig, shared } from './config.js';
import { type RecordedSpan, Tracing, tracingHeaders } from './tracing.js';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SAMPLED = `00-${TRACE}-00f067aa0ba902b7-01`;
const UNSAMPLED = `00-${TRACE}-00f067aa0ba902b7-00`;

function tracing({ ratio = 0.5, random = 0.5 } = {}) {
  const begun: RecordedSpan[] = [];
  const clock = { now: 5_000 };
  const recorder = {
    begin: (_: string, options: RecordedSpan) => {
      begun.push(options);
      return { traceparent: SAMPLED, set: () => {}, end: () => {} };
    },
    close: async () => {},
  };
  const all = new Tracing({ recorder, ratio, random: () => random, now: () => clock.now });
  return { all, begun, clock };
}

describe('Tracing', () => {
  it('goes on with a sampled context, and with nothing else', () => {
    const { all, begun } = tracing({ ratio: 1 });
    for (const parent of [
      undefined,
      UNSAMPLED,
      'x',
      SAMPLED.replace(TRACE, '0'.repeat(32)),
      `ff${SAMPLED.slice(2)}`,
    ]) {
      expect(all.start('a', { kind: 'internal', parent })).toBeUndefined();
    }
    expect(all.start('a', { kind: 'internal', parent: SAMPLED })).toBeDefined();
    expect(begun).toEqual([{ kind: 'internal', parent: SAMPLED }]);
  });

  it.each([
    ['a service that wants it', true, SAMPLED, 0, { parent: SAMPLED }],
    ['a service that does not', true, UNSAMPLED, 1, undefined],
    ['a service that says nothing, by chance', true, undefined, 1, {}],
    ['a service that says nothing, by chance not', true, undefined, 0, undefined],
    ['an end user that wants it, by chance', false, SAMPLED, 1, { links: [SAMPLED] }],
    ['an end user that wants it, by chance not', false, SAMPLED, 0, undefined],
  ])('of %s', (_, trusted, traceparent, ratio, recorded) => {
    const { all, begun } = tracing({ ratio });
    all.arrive('a', { kind: 'server', trusted, traceparent });
    expect(begun).toEqual(recorded === undefined ? [] : [{ kind: 'server', ...recorded }]);
  });

  it('begins no more than 1,000 spans in a second, however many are asked for', () => {
    const { all, begun, clock } = tracing();
    for (let i = 0; i < 1_500; i++) all.start('a', { kind: 'internal', parent: SAMPLED });
    expect(begun).toHaveLength(1_000);
    clock.now += 1_000;
    all.start('a', { kind: 'internal', parent: SAMPLED });
    expect(begun).toHaveLength(1_001);
  });

  it('knows the trace of the call that is served, in what it causes later, too', async () => {
    const { all } = tracing({ ratio: 1 });
    const serving: Parameters<Tracing['serve']>[0] = {};
    const later = all.serve(serving, async () => {
      await new Promise(setImmediate);
      return all.current;
    });
    serving.span = all.arrive('a', { kind: 'server', trusted: true });
    expect(await later).toBe(SAMPLED);
    expect(all.current).toBeUndefined();
  });
});

describe('the collector', () => {
  const { otlpEndpoint, otlpHeaders } = shared;
  const read = (env: Record<string, string>) =>
    readConfig({ otlpEndpoint, otlpHeaders }, { env, rules: [tracingHeaders] });
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' };

  it.each(['a=b', 'a=b,c=d%20e', ' a = b , c=d '])('may want the headers %j', (headers) => {
    expect(read({ ...endpoint, OTEL_EXPORTER_OTLP_HEADERS: headers }).otlpHeaders).toBe(headers.trim());
  });

  it.each(['sesame', 'a b=sesame', 'a=%0d%0asesame', 'a=%zz-sesame'])(
    'keeps the process from starting with the headers %j, and does not show them',
    (headers) => {
      let error: unknown;
      try {
        read({ ...endpoint, OTEL_EXPORTER_OTLP_HEADERS: headers });
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(ConfigError);
      expect(String(error)).toContain('OTEL_EXPORTER_OTLP_HEADERS');
      expect(String(error)).not.toContain('sesame');
    },
  );

  it('has to be named where it is given headers', () => {
    expect(() => read({ OTEL_EXPORTER_OTLP_HEADERS: 'a=b' })).toThrow('OTEL_EXPORTER_OTLP_ENDPOINT');
  });
});
