/** The gateway's configuration: every environment variable it reads. */
import {
  atLeastOne,
  BUDGETS,
  type Budgets,
  type ConfigOf,
  type ConfigRule,
  duration,
  flag,
  integer,
  list,
  natsFields,
  natsLogin,
  natsTls,
  ratio,
  readConfig,
  shared,
  tracingHeaders,
  url,
} from '@posthorn/service';
import { isRange } from './http/network.js';
import { isOriginEntry } from './http/origins.js';

const { nodeEnv, port, host, jwtSecret, jwksUrl, jwtIssuer, keySecret, instance } = shared;
const { courierCompat, logLevel, logFormat, otlpEndpoint, otlpHeaders } = shared;

/** RFC 1918, RFC 6598, RFC 4193, and what never leaves a link. */
const PRIVATE_RANGES: readonly string[] = [
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '169.254.0.0/16',
  '::1/128',
  'fc00::/7',
  'fe80::/10',
];

export const GATEWAY_FIELDS = {
  nodeEnv,
  port,
  host,
  ...natsFields,
  jwtSecret,
  jwksUrl,
  jwtIssuer,
  keySecret,
  instance,
  courierCompat,
  logLevel,
  logFormat,
  otlpEndpoint,
  otlpHeaders,
  traceRatio: ratio('TRACE_RATIO', {
    default: 0.01,
    description:
      'Share of the calls and publishes that are traced, beside those that a service or an admin asks to be (traceparent)',
  }),
  publicWsUrl: url('PUBLIC_WS_URL', {
    schemes: ['ws', 'wss'],
    // Everybody who signs is given it.
    login: false,
    optional: true,
    defaultText: 'ws://localhost:<PORT>',
    description: 'Where browsers reach the gateway: the beginning of the signed socket URL',
  }),
  allowedOrigins: list('ALLOWED_ORIGINS', {
    default: (production) => (production ? [] : ['*']),
    defaultText: 'none in production, else *',
    accepts: isOriginEntry,
    entry: 'origins, such as https://app.example or https://*.app.example, or *',
    description:
      'Origins whose pages may call REST and open sockets and streams; https://*.app.example for all names below, * for all',
  }),
  trustProxy: flag('TRUST_PROXY', {
    default: false,
    description:
      'Whether X-Forwarded-* headers come from a proxy of yours; of several addresses the last counts, which it added',
  }),
  frameLimit: integer('FRAME_LIMIT', {
    min: 1_024,
    max: 1_048_576,
    default: 65_536,
    description: 'Bytes of one frame from a socket; a larger one closes it with 1009',
  }),
  subscriptionLimit: integer('SUBSCRIPTION_LIMIT', {
    min: 1,
    default: 128,
    description: 'Subscriptions of one connection, topics of one event stream',
  }),
  publishRate: integer('PUBLISH_RATE', {
    min: 1,
    default: 100,
    description: 'Publishes of one connection, or of one user or API token over REST, per second on average',
  }),
  publishBurst: integer('PUBLISH_BURST', {
    min: 1,
    default: 200,
    description: 'Publishes of one connection, or of one user or API token over REST, at once',
  }),
  broadcastRate: integer('BROADCAST_RATE', {
    min: 1,
    default: 1,
    description: 'Broadcasts of one connection, or of one user over REST, per second on average',
  }),
  broadcastBurst: integer('BROADCAST_BURST', {
    min: 1,
    default: 10,
    description: 'Broadcasts of one connection, or of one user over REST, at once',
  }),
  sendBuffer: integer('SEND_BUFFER', {
    min: 65_536,
    default: 1_048_576,
    description:
      'Bytes that may wait for a connection that does not read; beyond it a socket is closed with 4408, a stream cut',
  }),
  pingInterval: duration('PING_INTERVAL', {
    min: 1_000,
    default: 25_000,
    description: 'Between two pings; a peer silent for two of them is closed',
  }),
  trytonBus: flag('TRYTON_BUS', {
    default: true,
    description: 'Whether POST /<database_name>/bus is served',
  }),
  busTimeout: duration('BUS_TIMEOUT', {
    min: 1_000,
    max: 3_600_000,
    default: 300_000,
    description: 'How long a poll waits for a message before it is answered with nulls',
  }),
  busCache: duration('BUS_CACHE', {
    min: 0,
    max: 60_000,
    default: 5_000,
    description: 'How far back a poll without a last message begins',
  }),
  pollLimit: integer('POLL_LIMIT', {
    min: 1,
    default: 128,
    description: 'Polls of one user that may wait at one gateway at once',
  }),
  pollRate: integer('POLL_RATE', {
    min: 1,
    default: 4_000,
    description: 'Polls of one user at one gateway, per second on average',
  }),
  pollBurst: integer('POLL_BURST', {
    min: 1,
    default: 8_000,
    description: 'Polls of one user at one gateway, at once',
  }),
  connectionLimit: integer('CONNECTION_LIMIT', {
    min: 1,
    default: 64,
    description: 'Sockets and event streams of one user that may be open at one gateway at once',
  }),
  streamLimit: integer('STREAM_LIMIT', {
    min: 1,
    default: 64,
    description: 'Event streams of one user that may be open at one gateway at once, within CONNECTION_LIMIT',
  }),
  addressLimit: integer('ADDRESS_LIMIT', {
    min: 1,
    default: 8_192,
    description:
      'Connections of one address (of IPv6: one /64) that may be open at one gateway at once: room for an office behind one address',
  }),
  addressRate: integer('ADDRESS_RATE', {
    min: 1,
    default: 200,
    description: 'Connections that one address may open at one gateway, per second on average',
  }),
  addressBurst: integer('ADDRESS_BURST', {
    min: 1,
    default: 20_000,
    description:
      'Connections that one address may open at one gateway, at once: all of ADDRESS_LIMIT come again after a restart, each with a call for its key',
  }),
  addressExempt: list('ADDRESS_EXEMPT', {
    default: PRIVATE_RANGES,
    defaultText: 'loopback, link-local and private addresses',
    accepts: isRange,
    entry: 'ranges of addresses, such as 10.0.0.0/8 or 2001:db8::/32',
    description:
      'Addresses without these limits; what is set stands instead of the default. A balancer that does not tell whom it serves is such an address',
  }),
  headersTimeout: duration('HEADERS_TIMEOUT', {
    min: 100,
    max: 3_600_000,
    default: 15_000,
    description:
      'How long the headers of a request may take to come in, from the beginning of its connection',
  }),
  requestTimeout: duration('REQUEST_TIMEOUT', {
    min: 100,
    max: 3_600_000,
    default: 60_000,
    description: 'How long a whole request may take to come in; not below HEADERS_TIMEOUT',
  }),
  keepAliveTimeout: duration('KEEP_ALIVE_TIMEOUT', {
    min: 100,
    max: 3_600_000,
    default: 75_000,
    description:
      'How long a connection is kept for a next request: longer than a proxy in front keeps its own (60 s at ingress-nginx), or that one sends into a closed one',
  }),
  heartbeat: duration('HEARTBEAT', {
    min: 1_000,
    max: 600_000,
    default: 15_000,
    description: 'Between two signs of life on an event stream',
  }),
  drainDelay: duration('DRAIN_DELAY', {
    min: 0,
    max: 60_000,
    default: 0,
    description:
      'How long a shutdown goes on answering, while /health/ready says no and connections are ended with their answers, until whoever balances by it has seen it',
  }),
  drainBudget: duration('DRAIN_BUDGET', {
    min: 100,
    default: 20_000,
    description: 'How long a shutdown may take to send its connections elsewhere',
  }),
  demo: flag('DEMO', {
    default: false,
    description:
      'Whether /demo is served, to pages of the same origin, with tokens of the audience demo for everybody; not in production',
  }),
} as const;

export type GatewayConfig = ConfigOf<typeof GATEWAY_FIELDS>;

/** @throws ConfigError naming every variable that is missing or not acceptable */
export function readGatewayConfig(env: NodeJS.ProcessEnv): GatewayConfig {
  return readConfig(GATEWAY_FIELDS, {
    env,
    rules: [
      natsLogin,
      tracingHeaders,
      natsTls,
      atLeastOne(GATEWAY_FIELDS, 'jwtSecret', 'jwksUrl'),
      demoOutsideProduction,
      demoWithSecret,
      requestAfterHeaders,
    ],
  });
}

/** The phases of a shutdown that are longer than those of other apps. */
export function shutdownBudgets({
  drainDelay,
  drainBudget,
}: Pick<GatewayConfig, 'drainDelay' | 'drainBudget'>): Partial<Budgets> {
  return {
    'stop accepting': Math.max(BUDGETS['stop accepting'], drainDelay + 1_000),
    'finish in flight': drainBudget,
  };
}

/** Whoever opens the demo gets a token: that is for nobody's real audience. */
const demoOutsideProduction: ConfigRule<GatewayConfig> = ({ demo, nodeEnv }) =>
  demo && nodeEnv === 'production'
    ? {
        name: 'DEMO',
        got: 'yes',
        wants: 'no where NODE_ENV is production: the demo gives tokens to everybody',
      }
    : undefined;

/** The demo signs its tokens itself. */
const demoWithSecret: ConfigRule<GatewayConfig> = ({ demo, jwtSecret }) =>
  demo && jwtSecret === undefined
    ? { name: 'JWT_SECRET', got: 'nothing', wants: 'a secret to sign the tokens of the demo with (DEMO)' }
    : undefined;

/** Node refuses to start otherwise, and names no variable. */
const requestAfterHeaders: ConfigRule<GatewayConfig> = ({
  headersTimeout = 0,
  requestTimeout = headersTimeout,
}) =>
  requestTimeout < headersTimeout
    ? { name: 'REQUEST_TIMEOUT', got: `${requestTimeout} ms`, wants: 'not less than HEADERS_TIMEOUT' }
    : undefined;
