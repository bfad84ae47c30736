export {
  createService,
  runMain,
  type Service,
  type ServiceOptions,
  startWorker,
  type WaitOptions,
  waitFor,
} from './bootstrap.js';
export {
  atLeastOne,
  ConfigError,
  type ConfigFinding,
  type ConfigOf,
  type ConfigRow,
  type ConfigRule,
  choice,
  databaseFields,
  describeConfig,
  duration,
  type Field,
  flag,
  integer,
  list,
  natsFields,
  ratio,
  readConfig,
  secret,
  shared,
  text,
  url,
} from './config.js';
export { checkAtStart } from './doctor/at-start.js';
export { type AtStart, CHECKS, type CheckId } from './doctor/checks.js';
export { type ClockReading, clockFinding } from './doctor/clock.js';
export { attempt, type Examine, examination, examineNats } from './doctor/examination.js';
export { type Finding, finding, ok, reasonOf, type Severity } from './doctor/finding.js';
export { bytesText, jetStreamFindings, loginFindings, natsFindings, replicasFinding } from './doctor/nats.js';
export { askMonitors, type Monitored, roomFindings, syncFindings } from './doctor/nats-monitor.js';
export { processFindings } from './doctor/process.js';
export { checksTable, merged, type Reported } from './doctor/report.js';
export { type DoctorOptions, runDoctor } from './doctor/run.js';
export { isLoopback, signingFindings } from './doctor/secrets.js';
export {
  backlogFinding,
  bucketFindings,
  copiesFinding,
  jetStreamClock,
  monitoredClocks,
  type Remedies,
  retentionFinding,
  type Settings,
  settingsFinding,
} from './doctor/streams.js';
export {
  type Check,
  Health,
  healthResponse,
  listenError,
  metricsResponse,
  type ProbeResponse,
  type ProbeServer,
  type Readiness,
  startProbeServer,
} from './health.js';
export { BucketWatch } from './identity/bucket-watch.js';
export { KeyRing, type SealOptions } from './identity/key.js';
export {
  RevocationList,
  type RevocationListOptions,
  type Revoked,
  reach,
  revocationOf,
} from './identity/revocations.js';
export { createVerifier, TOKEN_LIMIT, type Verifier, type VerifierOptions } from './identity/verifier.js';
export {
  type Condition,
  createLogger,
  type Logger,
  type LoggerOptions,
  nestLogger,
  onceUntil,
} from './logger.js';
export {
  type Distribution,
  type LabelSets,
  type Labels,
  Level,
  labelled,
  type MetricRow,
  Metrics,
  Peak,
  Tally,
} from './metrics.js';
export {
  connectNats,
  type NatsConfig,
  type NatsContext,
  type NatsIdentity,
  type NatsLink,
  type NatsSettings,
  natsLogin,
  natsOptions,
  natsSettings,
  natsTls,
  openNats,
} from './nats.js';
export { NatsMetrics } from './nats-metrics.js';
export { ProblemFilter, type ShownProblem, toProblem, writeProblem } from './problem-filter.js';
export { publishMetrics } from './publish-metrics.js';
export { keepUp, Routine, type RoutineOptions } from './routine.js';
export {
  type CallOptions,
  RpcClient,
  RpcProblemFilter,
  type RpcProblemFilterOptions,
  RpcServer,
  type RpcServerOptions,
  rpcServerOptions,
} from './rpc.js';
export { BUDGETS, type Budgets, PHASES, type Phase, Shutdown, ShutdownBegan, type Step } from './shutdown.js';
export { StartError } from './start-error.js';
export { certificateFindings, type TlsPeer, tlsRefusal } from './tls.js';
export {
  type Arrival,
  openTracing,
  type Recorder,
  type Serving,
  Tracing,
  type TracingConfig,
  tracingHeaders,
} from './tracing.js';
export { findingsOf, validationPipe } from './validation.js';
