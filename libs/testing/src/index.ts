export { type AppName, AppProcess } from './app-process.js';
export {
  type ClusterOptions,
  signToken,
  startCluster,
  type TestCluster,
  type TokenClaims,
} from './cluster.js';
export { freePort } from './free-port.js';
export {
  natsClusterSettled,
  startNats,
  startNatsCluster,
  type TestNats,
  type TestNatsCluster,
} from './nats-server.js';
export { createDatabase, startPostgres, type TestDatabase, type TestPostgres } from './postgres.js';
export { startTcpProxy, TcpProxy } from './tcp-proxy.js';
export { type TempDir, tempDir } from './temp-dir.js';
