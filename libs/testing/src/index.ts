export { type AppName, AppProcess } from './app-process.js';
export { type BrowserContext, type Page, startBrowser, type TestBrowser } from './browser.js';
export {
  type BusContent,
  draftOf,
  openBus,
  prepareBus,
  type ServedBus,
  startBus,
  type TestBus,
} from './bus.js';
export {
  type CertificateOptions,
  createAuthority,
  type TestAuthority,
  type TestCertificate,
} from './certificates.js';
export { Changes } from './changes.js';
export { type ClusterOptions, startCluster, type TestCluster } from './cluster.js';
export { Collected } from './collected.js';
export { cpuTime } from './cpu-time.js';
export { eventually } from './eventually.js';
export { type ForgedCopy, forgeCopy } from './forge-copy.js';
export { freePort } from './free-port.js';
export {
  natsClusterSettled,
  startNats,
  startNatsCluster,
  type TestNats,
  type TestNatsCluster,
} from './nats-server.js';
export { createDatabase, startPostgres, type TestDatabase, type TestPostgres } from './postgres.js';
export { rawPublish } from './raw-publish.js';
export { startTcpProxy, TcpProxy } from './tcp-proxy.js';
export { type TempDir, tempDir } from './temp-dir.js';
export { signToken, type TokenClaims } from './token.js';
