import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connect, nkeys } from '@nats-io/transport-node';
import { natsConfig } from '@posthorn/contracts';
import { startNats, type TestNats } from '@posthorn/testing';
import { loginOf } from './credentials.js';

describe('credentials', () => {
  const seedOf = (pair: { getSeed(): Uint8Array }) => new TextDecoder().decode(pair.getSeed());
  const shop = nkeys.createUser();
  let nats: TestNats;

  beforeAll(async () => {
    const { text, logins } = natsConfig({ login: 'nkey', services: [{ name: 'shop', audience: null }] });
    const keyOf = (user: string) => (user === 'service-shop' ? shop : nkeys.createUser()).getPublicKey();
    const env = Object.fromEntries(logins.map(({ user, variable }) => [variable, keyOf(user)]));
    nats = await startNats({ config: text, env });
  });
  afterAll(async () => {
    await nats?.[Symbol.asyncDispose]();
  });

  const open = (nkeySeed: string) => connect({ servers: nats.url, ...loginOf({ nkeySeed }) });

  it('open a server of nkeys to the one whose seed it is', async () => {
    await (await open(seedOf(shop))).close();
    // The server closes at once, and on a busy machine what it says about it is now and then lost.
    await expect(open(seedOf(nkeys.createUser()))).rejects.toThrow(/Authorization|timeout/);
  });

  it.each([
    { user: 'shop', password: '' },
    { user: '', password: 'sesame' },
    { nkeySeed: 'sesame' },
    { nkeySeed: seedOf(nkeys.createAccount()) },
    { credsFile: '' },
  ])('that are none are refused at once, and not repeated: %j', (credentials) => {
    expect(() => loginOf(credentials)).toThrow(TypeError);
    expect(() => loginOf(credentials)).not.toThrow(/sesame|SA/);
  });
});
