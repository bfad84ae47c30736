import {
  type NatsServer,
  natsClusterSettled,
  startNatsCluster as startClusterIn,
  startNatsServer,
} from '../../../tools/embedded/nats.mjs';
import { tempDir } from './temp-dir.js';

export { natsClusterSettled };

/** A nats-server with JetStream and an empty store; disposing of it ends it and removes the store. */
export type TestNats = NatsServer & AsyncDisposable;

/**
 * Starts a server on a free loopback port, in some 30 ms.
 * @param options.websocket also listen for WebSockets; its port is `websocketPort`
 * @param options.config further lines of server configuration (accounts, limits)
 */
export async function startNats(options: { websocket?: boolean; config?: string } = {}): Promise<TestNats> {
  const dir = await tempDir();
  const server = await startNatsServer({
    dir: dir.path,
    removeWhenOrphaned: dir.path,
    ...(options.websocket && { websocketPort: 0 }),
    ...(options.config && { config: options.config }),
  });
  return Object.assign(server, {
    [Symbol.asyncDispose]: async () => {
      await server.kill();
      await dir[Symbol.asyncDispose]();
    },
  });
}

export interface TestNatsCluster extends AsyncDisposable {
  servers: NatsServer[];
  /** For clients: all servers, separated by commas. */
  url: string;
}

/** Starts servers that share one JetStream, and resolves when it has a leader. */
export async function startNatsCluster(
  options: { size?: number; config?: string } = {},
): Promise<TestNatsCluster> {
  const dir = await tempDir();
  const servers = await startClusterIn({ ...options, dir: dir.path, removeWhenOrphaned: dir.path });
  return {
    servers,
    url: servers.map((server) => server.url).join(','),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(servers.map((server) => server.kill()));
      await dir[Symbol.asyncDispose]();
    },
  };
}
