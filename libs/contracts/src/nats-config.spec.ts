import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { natsConfig } from './nats-config.js';

describe('the configuration of NATS accounts', () => {
  it('names a variable for each user, and no two the same', () => {
    const { logins } = natsConfig({
      audiences: ['acme', 'ac me', 'ac_20me', 'ac=20me', 'ACME', 'ä'],
      services: [{ name: 'mail-2', audience: null }],
      operator: true,
    });
    expect(Object.fromEntries(logins.map(({ user, variable }) => [user, variable]))).toEqual({
      auth: 'NATS_PASSWORD_AUTH',
      registry: 'NATS_PASSWORD_REGISTRY',
      notifier: 'NATS_PASSWORD_NOTIFIER',
      gateway: 'NATS_PASSWORD_GATEWAY',
      'service-mail-2': 'NATS_PASSWORD_SERVICE_mail_2D2',
      operator: 'NATS_PASSWORD_OPERATOR',
      'audience-acme': 'NATS_PASSWORD_AUDIENCE_acme',
      'audience-ac=20me': 'NATS_PASSWORD_AUDIENCE_ac_20me',
      'audience-ac_20me': 'NATS_PASSWORD_AUDIENCE_ac_5F20me',
      'audience-ac=3D20me': 'NATS_PASSWORD_AUDIENCE_ac_3D20me',
      'audience-ACME': 'NATS_PASSWORD_AUDIENCE_ACME',
      'audience-=C3=A4': 'NATS_PASSWORD_AUDIENCE__C3_A4',
    });
  });

  it('is what the manifests and docker compose have (else: npm run -s nats-config > k8s/base/nats/accounts.conf)', () => {
    expect(readFileSync('k8s/base/nats/accounts.conf', 'utf8')).toBe(natsConfig().text);
  });

  it('gives JetStream to one account, and no audience anything of another', () => {
    const { text } = natsConfig({ audiences: ['acme', 'beta'] });
    expect(text.match(/jetstream/g)).toHaveLength(1);
    const [, acme] = /"AUDIENCE_acme" \{\n(.*?)\n {2}\}/s.exec(text) ?? [];
    expect(acme).toContain('"ph.acme.global.>"');
    expect(acme).not.toMatch(/beta|\*\.(global|local)|\$JS|\$KV|ph-rpc/);
  });

  it.each([
    { audiences: ['acme', 'acme'] },
    { audiences: [''] },
    { services: [{ name: '', audience: null }] },
    { services: [{ name: 'x'.repeat(65), audience: null }] },
    { services: [{ name: 'mail', audience: '' }] },
    {
      services: [
        { name: 'mail', audience: null },
        { name: 'mail', audience: 'acme' },
      ],
    },
  ])('is not made of %j', (options) => {
    expect(() => natsConfig(options)).toThrow();
  });
});
