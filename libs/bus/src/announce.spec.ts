import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EXAMPLES } from '@posthorn/contracts';
import { Collected, prepareBus, startNats, type TestNats } from '@posthorn/testing';
import { announce } from './announce.js';
import { connectPubSub, type PubSub } from './pubsub.js';

let nats: TestNats;
let pubsub: PubSub;

beforeAll(async () => {
  nats = await startNats();
  await prepareBus(nats);
  pubsub = connectPubSub({ servers: nats.url, audience: 'acme', source: 'web' });
});

afterAll(async () => {
  await pubsub.close();
  await nats[Symbol.asyncDispose]();
});

describe('announce', () => {
  it('publishes each documented message on the topic of its user', async () => {
    const heard = new Collected<[string, unknown]>();
    const names = [
      'personal',
      'local_sync',
      'changed_task',
      'log_message',
      'incoming_mail',
      'sync',
      'taskd.certificate',
    ] as const;
    for (const name of [...names, 'incoming_trello_change'] as const)
      await pubsub.global
        .topic(`${name}.>`)
        .subscribe((payload, { event }) => heard.add([event.topic.name, payload])).ready;
    for (const name of names) {
      const { username: _, ...message } = EXAMPLES[name];
      await announce(pubsub, name, 'alice.smith', message as never);
    }
    await announce(pubsub, 'incoming_trello_change', 'alice.smith', EXAMPLES.incoming_trello_change);
    expect([...(await heard.until(8))].sort()).toEqual(
      [
        ...names.map((name) => [`${name}.alice.smith`, { ...EXAMPLES[name], username: 'alice.smith' }]),
        ['incoming_trello_change.alice.smith', EXAMPLES.incoming_trello_change],
      ].sort(),
    );
  });

  it('refuses a message that names another user', async () => {
    const refusal = { code: 'payload_invalid', errors: [{ path: '/username', message: expect.any(String) }] };
    const message = { username: 'bob', title: 't', message: 'm' };
    await expect(pubsub.global.topic('personal.alice').publish(message)).rejects.toMatchObject(refusal);
    const bob = { ...message, username: 'bob' } as const;
    // @ts-expect-error: alice is not bob
    await expect(announce(pubsub, 'personal', 'alice', bob)).rejects.toMatchObject(refusal);
    const username = 'alice' as string;
    await expect(announce(pubsub, 'personal', username, message)).rejects.toMatchObject(refusal);
  });

  it('takes nothing but what the topic is documented to have', async () => {
    // @ts-expect-error: no message
    await expect(announce(pubsub, 'personal', 'alice', { title: 't' })).rejects.toMatchObject({
      errors: [{ path: '/message' }],
    });
    // @ts-expect-error: no topic of a user
    await expect(announce(pubsub, '__general__', 'alice', {})).rejects.toThrow(RangeError);
  });
});
