/**
 * Everything that the doctor looks at: `npm run doctor`, `node docker/run.mjs doctor`, and the apps at their start in
 * production. Why each matters is said here once; what was found, and what to do, is said by whoever looks.
 */

/**
 * What a check does where an app starts in production: `stops` it at a failure, is `told` in the log, or is left to the
 * doctor. Only what a configuration says may stop a start. A state that passes (a server that is away, a copy that lags)
 * never does: a fleet has to come back from an outage by itself.
 */
export type AtStart = 'stops' | 'told' | 'no';

/** One thing that is looked at. */
export interface Check {
  /** The question, as a noun phrase. */
  readonly of: string;
  readonly why: string;
  readonly atStart: AtStart;
}

export const CHECKS = {
  'config.valid': {
    of: 'Every variable is there and acceptable',
    why: 'An app with a variable that is missing or wrong does not start.',
    // By the reading of the configuration itself.
    atStart: 'stops',
  },
  'secrets.signing': {
    of: 'JWT_SECRET and KEY_SECRET cannot be guessed',
    why: 'Who guesses JWT_SECRET signs tokens for anybody; who guesses KEY_SECRET opens sockets as anybody.',
    atStart: 'stops',
  },
  'secrets.distinct': {
    of: 'JWT_SECRET and KEY_SECRET are not the same',
    why: 'JWT_SECRET is shared with whoever signs tokens, and KEY_SECRET is for the apps alone: as one secret, each signer can make keys.',
    atStart: 'stops',
  },
  'secrets.passwords': {
    of: 'Passwords of NATS and PostgreSQL cannot be guessed',
    why: 'Who can log in as an app publishes, reads and deletes what the app may.',
    atStart: 'told',
  },
  'secrets.jwks': {
    of: "The identity provider's keys come over TLS",
    why: 'Who can change the answer of JWKS_URL on its way puts in a key of their own, and signs tokens for anybody.',
    atStart: 'told',
  },
  'origins.allowed': {
    of: "ALLOWED_ORIGINS names the product's pages, and they come over TLS",
    why: 'An origin that is missing locks its pages out; * lets the pages of any site call with a token that they got hold of.',
    atStart: 'told',
  },
  'origins.public-url': {
    of: 'PUBLIC_WS_URL leads clients to this gateway, over TLS',
    why: 'Signed socket URLs begin with it, and carry the key that opens the socket.',
    atStart: 'told',
  },
  'origins.proxy': {
    of: 'TRUST_PROXY is on behind a proxy that ends TLS',
    why: "Without it every client has the proxy's address, in logs and wherever addresses count.",
    atStart: 'told',
  },
  'process.node': {
    of: 'The version of Node.js',
    why: 'Older ones lack what the apps use, and have no security updates.',
    atStart: 'told',
  },
  'process.files': {
    of: 'Files that the process may open',
    why: 'Each connection takes one. At the limit the gateway takes no more, and cannot reach NATS again either.',
    atStart: 'told',
  },
  'process.memory': {
    of: 'The heap limit within the memory limit',
    why: 'A heap that may grow beyond what the container has is ended by the kernel, with every connection that it serves, instead of being collected.',
    atStart: 'told',
  },
  'nats.reachable': {
    of: 'NATS answers, and takes the login',
    why: 'Without NATS nothing is published, delivered or answered.',
    atStart: 'no',
  },
  'nats.version': {
    of: 'The version of NATS',
    why: 'Before 2.10 a server cannot change what a stream republishes, flushes its files every two minutes whatever is configured, and crashes when a bucket is asked for while it is made.',
    atStart: 'stops',
  },
  'nats.login': {
    of: 'NATS asks for a login',
    why: 'Who can connect without one may publish, hear and delete everything.',
    atStart: 'stops',
  },
  'nats.tls': {
    of: 'The connection to NATS is encrypted',
    why: 'Events and passwords cross the network in the clear otherwise.',
    atStart: 'told',
  },
  'jetstream.available': {
    of: 'JetStream is enabled for the account',
    why: 'Events are stored in it before they are acknowledged.',
    atStart: 'no',
  },
  'jetstream.replicas': {
    of: 'STREAM_REPLICAS for the cluster that is there',
    why: 'With one copy, the loss of one disk is the loss of the events, and the restart of one server a pause of everything.',
    atStart: 'told',
  },
  'jetstream.room': {
    of: 'JetStream has room for what the streams may hold',
    why: 'At the limit of the server or the account publishes are refused, however much the streams themselves may still hold.',
    atStart: 'no',
  },
  'jetstream.sync': {
    of: 'sync_interval of every server',
    why: 'What servers have acknowledged and not flushed is lost when the power of most of them fails at once.',
    atStart: 'no',
  },
  'streams.settings': {
    of: 'Each stream is there, with the settings that are wanted',
    why: 'Retention, size and live delivery are what the streams are set to, not what the variables say.',
    atStart: 'no',
  },
  'streams.copies': {
    of: 'Each stream and bucket has a leader, and its copies are up to date',
    why: 'Without a leader nothing is stored; with a copy that lags or is away, the next failure can be one too many.',
    atStart: 'no',
  },
  'streams.retention': {
    of: 'What a stream may hold is enough for STREAM_MAX_AGE',
    why: 'A full stream drops its oldest events: who was away for longer than it holds misses them, and is told so.',
    atStart: 'no',
  },
  'buckets.settings': {
    of: 'Each KV bucket is there, with the settings that are wanted',
    why: 'Gateways take topics, epochs and revocations from them. Nobody changes a bucket that exists: a raised STREAM_REPLICAS leaves it on one server.',
    atStart: 'no',
  },
  'consumers.settings': {
    of: 'Each durable consumer is there, with the settings that are wanted',
    why: 'Events wait in the stream until a consumer takes them, and are gone once the stream drops them.',
    atStart: 'no',
  },
  'consumers.backlog': {
    of: 'What waits for each durable consumer',
    why: 'Notifications are late by what waits. A consumer whose work in hand is at its limit is given nothing more.',
    atStart: 'no',
  },
  'database.reachable': {
    of: 'PostgreSQL answers, and takes the login',
    why: 'Revocations, topics and notifications are kept in it.',
    atStart: 'no',
  },
  'database.version': {
    of: 'The version of PostgreSQL',
    why: 'The tests run on 18, and what they ask of a database passed on 17.10. Nobody has tried what is older.',
    atStart: 'told',
  },
  'database.tls': {
    of: 'The connection to PostgreSQL is encrypted',
    why: 'The password and what users are told cross the network in the clear otherwise.',
    atStart: 'told',
  },
  'database.durability': {
    of: 'PostgreSQL writes to disk before it confirms',
    why: 'With fsync, full_page_writes or synchronous_commit off, a crash loses revocations and notifications that were confirmed, or the whole database.',
    atStart: 'told',
  },
  'database.migrations': {
    of: "The app's migrations are those of the database",
    why: 'An app cannot work with tables that it does not know.',
    atStart: 'no',
  },
  'database.connections': {
    of: 'max_connections for the pools',
    why: 'An app that gets no connection answers unavailable; in a roll-out old and new processes have a pool each.',
    atStart: 'told',
  },
  'clock.database': {
    of: "This machine's clock against PostgreSQL's",
    why: 'Tokens, keys and revocations are compared by time: one that should be over is accepted, or one that is good is refused.',
    atStart: 'no',
  },
  'clock.nats': {
    of: "This machine's clock against JetStream's",
    why: 'Events carry the time of JetStream, and their age at delivery and retention are computed with it.',
    atStart: 'no',
  },
} as const satisfies Record<string, Check>;

export type CheckId = keyof typeof CHECKS;
