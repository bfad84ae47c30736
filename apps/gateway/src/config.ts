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
  natsLogin,
  readConfig,
  shared,
  url,
} from '@posthorn/service';

const { nodeEnv, port, host, natsUrl, natsUser, natsPassword, natsNkeySeed, natsCreds } = shared;
const { jwtSecret, jwksUrl, jwtIssuer, keySecret, instance, courierCompat, logLevel } = shared;

export const GATEWAY_FIELDS = {
  nodeEnv,
  port,
  host,
  natsUrl,
  natsUser,
  natsPassword,
  natsNkeySeed,
  natsCreds,
  jwtSecret,
  jwksUrl,
  jwtIssuer,
  keySecret,
  instance,
  courierCompat,
  logLevel,
  publicWsUrl: url('PUBLIC_WS_URL', {
    schemes: ['ws', 'wss'],
    optional: true,
    defaultText: 'ws://localhost:<PORT>',
    description: 'Where browsers reach the gateway: the beginning of the signed socket URL',
  }),
  allowedOrigins: list('ALLOWED_ORIGINS', {
    default: (production) => (production ? [] : ['*']),
    defaultText: 'none in production, else *',
    description: 'Origins whose pages may call REST and open sockets; * for all',
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
      atLeastOne(GATEWAY_FIELDS, 'jwtSecret', 'jwksUrl'),
      demoOutsideProduction,
      demoWithSecret,
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

/**
 * Whether a page of that `Origin` may open sockets and streams; programs without a browser send none. The demo's page is
 * the gateway's own.
 */
export function originAllowed(
  { allowedOrigins, demo }: Pick<GatewayConfig, 'allowedOrigins' | 'demo'>,
  { origin, host }: { readonly origin?: string | undefined; readonly host?: string | undefined },
): boolean {
  if (origin === undefined || allowedOrigins.includes('*') || allowedOrigins.includes(origin)) return true;
  return demo && (origin === `http://${host}` || origin === `https://${host}`);
}
