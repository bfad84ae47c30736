import { join } from 'node:path';
import { startNatsServer } from '../../tools/embedded/nats.mjs';

/**
 * nats-server's own WebSocket listener: its clients speak the NATS protocol in binary frames.
 * @param {import('../contender.mjs').Place} place
 * @returns {Promise<import('../contender.mjs').Server>}
 */
export async function startNatsListener({ dir }) {
  const server = await startNatsServer({ dir: join(dir, 'nats'), websocketPort: 0, removeWhenOrphaned: dir });
  return {
    pids: { server: server.pid ?? 0 },
    helperPids: [],
    target: async () => ({ dialect: 'nats', port: server.websocketPort ?? 0, path: '/' }),
    stop: () => server.kill(),
  };
}
