import { describe, expect, it } from '@jest/globals';
import { ConfigError } from '@posthorn/service';
import { readGatewayConfig } from './config.js';

const SECRET = 'x'.repeat(32);
const env = { JWT_SECRET: SECRET, KEY_SECRET: SECRET, NATS_URL: 'nats://127.0.0.1:4222' };

function refusalOf(variables: NodeJS.ProcessEnv): string {
  try {
    readGatewayConfig(variables);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

describe('DEMO', () => {
  it('is off unless it is asked for', () => {
    expect(readGatewayConfig(env).demo).toBe(false);
    expect(readGatewayConfig({ ...env, DEMO: '1' }).demo).toBe(true);
  });

  it('is refused in production, by its name', () => {
    expect(readGatewayConfig({ ...env, NODE_ENV: 'production' }).demo).toBe(false);
    expect(refusalOf({ ...env, DEMO: '1', NODE_ENV: 'production' })).toMatch(
      /DEMO.*production.*gives tokens to everybody/,
    );
  });

  it('needs the secret that it signs its tokens with', () => {
    const { JWT_SECRET, ...rest } = { ...env, DEMO: '1', JWKS_URL: 'https://id.example/keys' };
    expect(refusalOf(rest)).toContain('JWT_SECRET');
  });
});

describe('ALLOWED_ORIGINS', () => {
  it('is everybody in development and nobody in production, where nothing else is said', () => {
    expect(readGatewayConfig(env).allowedOrigins).toEqual(['*']);
    expect(readGatewayConfig({ ...env, NODE_ENV: 'production' }).allowedOrigins).toEqual([]);
  });

  it.each([
    'app.example',
    'https://app.example/path',
    'null',
    'https://*',
    'https://*.com',
    'https://a.*.example',
  ])('refuses %s by its name', (entry) => {
    expect(refusalOf({ ...env, ALLOWED_ORIGINS: `https://www.example,${entry}` })).toMatch(
      /ALLOWED_ORIGINS: got .*, wants origins, such as https:\/\/app\.example/,
    );
  });
});

describe('ADDRESS_EXEMPT', () => {
  it('is what no client has whom limits are for, unless something else is said', () => {
    expect(readGatewayConfig(env).addressExempt).toContain('10.0.0.0/8');
    expect(readGatewayConfig({ ...env, ADDRESS_EXEMPT: '192.0.2.0/24' }).addressExempt).toEqual([
      '192.0.2.0/24',
    ]);
    expect(refusalOf({ ...env, ADDRESS_EXEMPT: '192.0.2.1' })).toMatch(
      /ADDRESS_EXEMPT: got .*, wants ranges of addresses/,
    );
  });
});

describe('REQUEST_TIMEOUT', () => {
  it('is not below HEADERS_TIMEOUT', () => {
    expect(refusalOf({ ...env, REQUEST_TIMEOUT: '10s' })).toMatch(/REQUEST_TIMEOUT.*HEADERS_TIMEOUT/);
    expect(readGatewayConfig({ ...env, REQUEST_TIMEOUT: '10s', HEADERS_TIMEOUT: '10s' }).requestTimeout).toBe(
      10_000,
    );
  });
});
