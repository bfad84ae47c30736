import { describe, expect, it } from '@jest/globals';
import { ConfigError } from '@posthorn/service';
import { originAllowed, readGatewayConfig } from './config.js';

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

describe('a page', () => {
  const config = readGatewayConfig({ ...env, ALLOWED_ORIGINS: 'https://app.example' });
  const host = 'events.example:8080';

  it('opens sockets from the origins of the list alone', () => {
    expect(originAllowed(config, { host, origin: 'https://app.example' })).toBe(true);
    expect(originAllowed(config, { host, origin: 'https://evil.example' })).toBe(false);
    expect(originAllowed(config, { host, origin: `https://${host}` })).toBe(false);
    expect(originAllowed(config, { host })).toBe(true);
  });

  it("of the demo is the gateway's own", () => {
    const demo = { ...config, demo: true };
    expect(originAllowed(demo, { host, origin: `http://${host}` })).toBe(true);
    expect(originAllowed(demo, { host, origin: 'http://events.example' })).toBe(false);
    expect(originAllowed(demo, { origin: 'http://undefined.example' })).toBe(false);
  });
});
