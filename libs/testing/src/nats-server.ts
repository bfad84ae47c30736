import {
  type NatsServer,
  natsClusterSettled,
  startNatsCluster as startClusterIn,
  startNatsServer,
} from '../../../tools/embedded/nats.mjs';
import type { TestCertificate } from './certificates.js';
import { startInTempDir } from './temp-dir.js';

export { natsClusterSettled };

/** A nats-server with JetStream and an empty store; disposing of it ends it and removes the store. */
export type TestNats = NatsServer & AsyncDisposable;

/**
 * Starts a server on a free loopback port, in some 30 ms.
 * @param options.websocket also listen for WebSockets; its port is `websocketPort`
 * @param options.config further lines of server configuration (accounts, limits)
 * @param options.env variables that the configuration names
 * @param options.tls the server's certificate; with `caFile`, clients need one of that authority
 */
export function startNats(
  options: {
    websocket?: boolean;
    config?: string;
    env?: Record<string, string>;
    tls?: TestCertificate & { caFile?: string };
  } = {},
): Promise<TestNats> {
  return startInTempDir((dir) =>
    startNatsServer({
      dir,
      removeWhenOrphaned: dir,
      ...(options.websocket && { websocketPort: 0 }),
      ...(options.config && { config: options.config }),
      ...(options.env && { env: options.env }),
      ...(options.tls && { tls: options.tls }),
    }),
  );
}

/** Servers that share one JetStream. */
export interface TestNatsCluster extends AsyncDisposable {
  servers: NatsServer[];
  /** For clients: all servers, separated by commas. */
  url: string;
}

/** Starts such servers, three unless told otherwise, and resolves when their JetStream has a leader. */
export function startNatsCluster(options: { size?: number; config?: string } = {}): Promise<TestNatsCluster> {
  return startInTempDir(async (dir) => {
    const servers = await startClusterIn({ ...options, dir, removeWhenOrphaned: dir });
    return {
      servers,
      url: servers.map((server) => server.url).join(','),
      kill: async () => {
        await Promise.all(servers.map((server) => server.kill()));
      },
    };
  });
}
