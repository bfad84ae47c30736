import { describe, expect, it } from '@jest/globals';
import {
  atLeastOne,
  ConfigError,
  choice,
  describeConfig,
  duration,
  flag,
  integer,
  list,
  readConfig,
  secret,
  shared,
  text,
  url,
} from './config.js';

const about = { description: 'for a test' };

function findingsOf(read: () => unknown) {
  try {
    read();
  } catch (error) {
    if (error instanceof ConfigError) return error.findings;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

describe('readConfig', () => {
  it('reads each kind of value into its type', () => {
    const config = readConfig(
      {
        name: text('NAME', about),
        limit: integer('LIMIT', about),
        compress: flag('COMPRESS', about),
        upstream: url('UPSTREAM', { ...about, schemes: ['https'] }),
        pause: duration('PAUSE', about),
        origins: list('ORIGINS', about),
        mode: choice('MODE', ['fast', 'safe'], about),
        secret: secret('SECRET', about),
      },
      {
        env: {
          NAME: ' demo ',
          LIMIT: '12',
          COMPRESS: 'yes',
          UPSTREAM: 'https://example.org/x',
          PAUSE: '5m',
          ORIGINS: 'https://a.example, https://b.example,',
          MODE: 'safe',
          SECRET: 'hush',
        },
      },
    );
    const typed: { name: string; limit: number; compress: boolean; mode: 'fast' | 'safe' } = config;
    expect(typed).toEqual({
      name: 'demo',
      limit: 12,
      compress: true,
      upstream: 'https://example.org/x',
      pause: 300_000,
      origins: ['https://a.example', 'https://b.example'],
      mode: 'safe',
      secret: 'hush',
    });
    expect(Object.isFrozen(config)).toBe(true);
  });

  it('names every bad variable at once, with what it got and what it wants', () => {
    const fields = {
      port: integer('PORT', { ...about, min: 1, max: 65_535 }),
      pause: duration('PAUSE', { ...about, min: 100 }),
      upstream: url('UPSTREAM', { ...about, schemes: ['http', 'https'] }),
      mode: choice('MODE', ['fast', 'safe'], about),
    };
    expect(
      findingsOf(() => readConfig(fields, { env: { PORT: '80a', PAUSE: '1ms', UPSTREAM: 'ftp://x' } })),
    ).toEqual([
      { name: 'PORT', got: '"80a"', wants: 'a whole number from 1 to 65535' },
      { name: 'PAUSE', got: '"1ms"', wants: 'a duration from 100ms, such as 500ms, 30s, 5m or 1h' },
      { name: 'UPSTREAM', got: '"ftp://x"', wants: 'a URL that begins http:// or https://' },
      { name: 'MODE', got: 'nothing', wants: 'one of fast, safe' },
    ]);
  });

  it('counts a variable set to nothing as not set', () => {
    const fields = { port: integer('PORT', { ...about, default: 8080 }) };
    expect(readConfig(fields, { env: { PORT: '' } })).toEqual({ port: 8080 });
  });

  it('leaves an optional variable undefined', () => {
    const { issuer } = readConfig({ issuer: text('ISSUER', { ...about, optional: true }) }, { env: {} });
    const typed: string | undefined = issuer;
    expect(typed).toBeUndefined();
  });

  it('never shows the value of a secret', () => {
    const env = { NODE_ENV: 'production', KEY_SECRET: 'too-short', NATS_URL: 'http://me:sesame@nats' };
    const findings = findingsOf(() =>
      readConfig({ keySecret: shared.keySecret, natsUrl: shared.natsUrl }, { env }),
    );
    expect(findings).toEqual([
      { name: 'KEY_SECRET', got: 'a value of 9 bytes (not shown)', wants: 'at least 32 bytes' },
      {
        name: 'NATS_URL',
        got: 'a value of 21 bytes (not shown)',
        wants: 'one or more URLs that begin nats:// or tls://',
      },
    ]);
  });

  it.each(['jwksUrl', 'publicUrl'] as const)('takes no login in a URL that is no place for one', (key) => {
    const publicUrl = url('PUBLIC_URL', { ...about, schemes: ['https'], login: false });
    const fields = { jwksUrl: shared.jwksUrl, publicUrl };
    const { name } = fields[key];
    for (const login of ['me:sesame@', 'sesame@', ':sesame@']) {
      const [finding] = findingsOf(() =>
        readConfig({ [key]: fields[key] }, { env: { [name]: `https://${login}id.example/keys` } }),
      );
      expect(finding).toMatchObject({ name, wants: expect.stringMatching(/without a user or password$/) });
      expect(finding?.got).not.toContain('sesame');
    }
  });

  it('takes a list of URLs that ends with a comma, without it', () => {
    const env = { NATS_URL: 'nats://a:4222, nats://b:4222,' };
    expect(readConfig({ natsUrl: shared.natsUrl }, { env }).natsUrl).toBe('nats://a:4222,nats://b:4222');
    expect(
      findingsOf(() => readConfig({ natsUrl: shared.natsUrl }, { env: { NATS_URL: ' , ' } })),
    ).toMatchObject([{ name: 'NATS_URL' }]);
  });

  it('accepts a short secret outside production', () => {
    expect(readConfig({ keySecret: shared.keySecret }, { env: { KEY_SECRET: 'short' } }).keySecret).toBe(
      'short',
    );
  });

  it('has defaults for development that production does not have', () => {
    const fields = { natsUrl: shared.natsUrl };
    expect(readConfig(fields, { env: {} })).toEqual({ natsUrl: 'nats://127.0.0.1:4222' });
    expect(findingsOf(() => readConfig(fields, { env: { NODE_ENV: 'production' } }))).toMatchObject([
      { name: 'NATS_URL', got: 'nothing' },
    ]);
  });

  it('listens on loopback unless it is in production', () => {
    const fields = { host: shared.host };
    expect(readConfig(fields, { env: {} }).host).toBe('127.0.0.1');
    expect(readConfig(fields, { env: { NODE_ENV: 'production' } }).host).toBe('0.0.0.0');
  });

  it('demands one of several variables', () => {
    const fields = { jwtSecret: shared.jwtSecret, jwksUrl: shared.jwksUrl };
    const rules = [atLeastOne(fields, 'jwtSecret', 'jwksUrl')];
    expect(findingsOf(() => readConfig(fields, { env: {}, rules }))).toEqual([
      { name: 'JWT_SECRET or JWKS_URL', got: 'nothing', wants: 'at least one of them' },
    ]);
    expect(readConfig(fields, { env: { JWKS_URL: 'https://id.example/keys' }, rules }).jwksUrl).toBe(
      'https://id.example/keys',
    );
  });
});

describe('describeConfig', () => {
  it('writes a row for each variable, and no default for a secret', () => {
    const fields = { host: shared.host, natsUrl: shared.natsUrl, keySecret: shared.keySecret };
    expect(describeConfig(fields)).toEqual([
      {
        name: 'HOST',
        type: 'text',
        default: '0.0.0.0 in production, else 127.0.0.1',
        required: 'no',
        secret: false,
        description: shared.host.description,
      },
      {
        name: 'NATS_URL',
        type: 'URLs, comma-separated',
        default: 'nats://127.0.0.1:4222',
        required: 'in production',
        secret: true,
        description: shared.natsUrl.description,
      },
      {
        name: 'KEY_SECRET',
        type: 'secret',
        default: '',
        required: 'always',
        secret: true,
        description: shared.keySecret.description,
      },
    ]);
  });

  it('writes durations and lists the way they are set', () => {
    const fields = {
      pause: duration('PAUSE', { ...about, default: 90_000 }),
      faces: list('FACES', { ...about, default: ['courier', 'bus'] }),
    };
    expect(describeConfig(fields).map((row) => row.default)).toEqual(['90s', 'courier,bus']);
  });
});
