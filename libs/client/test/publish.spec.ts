/** Publishes that nobody awaits. */
import { describe, expect, it } from '@jest/globals';
import { Posthorn } from '../src/posthorn.js';
import { Rooms } from '../src/pubsub.js';

const options = {
  url: 'http://127.0.0.1:9',
  getToken: () => Promise.reject(new Error('no token')),
};

describe('a publish that fails', () => {
  it('is silent where nobody awaits it, and told to whoever does', async () => {
    const unhandled: unknown[] = [];
    const note = (reason: unknown) => unhandled.push(reason);
    process.on('unhandledRejection', note);
    try {
      const client = new Posthorn(options);
      client.on('error', () => {});
      const rooms = new Rooms();
      rooms.connect(options).on('error', () => {});
      void client.publish('chat/lobby', {});
      void client.broadcast({});
      void client.publish('chat/lobby', [] as object);
      void rooms.publish('say-hello', { data: {} });
      const awaited = client.publish('chat/lobby', {});
      client.close();
      rooms.close();
      await expect(awaited).rejects.toMatchObject({ code: 'closed' });
      // Rejections are judged once the queue of microtasks is empty.
      await new Promise(setImmediate);
      expect(unhandled).toEqual([]);
    } finally {
      process.off('unhandledRejection', note);
    }
  });
});
