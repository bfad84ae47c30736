import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { StartError } from './start-error.js';

/**
 * The typed environment reader. An app declares its variables in one table, reads them once at boot, and
 * hands the frozen result around; the same table feeds the documentation ({@link describeConfig}).
 */

/** One environment variable: how it is read, what it wants, and how it is documented. */
export interface Field<T> {
  /** The variable's name, for example `NATS_URL`. */
  readonly name: string;
  /** The kind of value, for the documentation. */
  readonly type: string;
  readonly description: string;
  /** The value never appears in an error, a log line or the documentation. */
  readonly secret: boolean;
  /** What a valid value looks like, as the end of a sentence: "wants …". */
  wants(production: boolean): string;
  /** How a value that is not acceptable is shown, without what is secret in it. */
  shown(text: string): string;
  /** The value of a text that is not empty, or `undefined` when it is not acceptable. */
  parse(text: string, production: boolean): T | undefined;
  /** The value when the variable is not set; `missing` when there is none and the app must not start. */
  fallback(production: boolean): T | typeof missing;
  /** The default, for the documentation. */
  readonly defaultText: string;
}

/** The answer of {@link Field.fallback} that makes a variable required. */
export const missing = Symbol('missing');

/** What every kind of field takes. With none of the three defaults the variable is required. */
export interface FieldOptions<T> {
  readonly description: string;
  /** Used whenever the variable is not set. */
  readonly default?: T | ((production: boolean) => T);
  /** Used when the variable is not set outside production; in production the variable is required. */
  readonly developmentDefault?: T;
  /** The variable may be missing: the value is then `undefined`. */
  readonly optional?: boolean;
  /** How the documentation writes a default that is computed. */
  readonly defaultText?: string;
}

/** The value type of a field: `T`, or `T | undefined` where the options say `optional`. */
type Value<T, O> = O extends { optional: true } ? T | undefined : T;

/** The typed object that a table of fields is read into. */
export type ConfigOf<F extends Record<string, Field<unknown>>> = {
  readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never;
};

/** One variable that is not acceptable. `got` is already free of secrets. */
export interface ConfigFinding {
  readonly name: string;
  readonly got: string;
  readonly wants: string;
}

/** The environment is not acceptable. Lists every bad variable at once, and no value of a secret. */
export class ConfigError extends StartError {
  constructor(readonly findings: readonly ConfigFinding[]) {
    const lines = findings.map(({ name, got, wants }) => `  ${name}: got ${got}, wants ${wants}`);
    super(`The configuration is not valid:\n${lines.join('\n')}`);
  }
}

/**
 * A demand on several variables together. Returns what is wrong, if anything. A variable that is not acceptable by
 * itself has no value in `config`; `given` says that it is set.
 */
export type ConfigRule<C> = (
  config: Partial<C>,
  given: (key: keyof C) => boolean,
) => ConfigFinding | readonly ConfigFinding[] | undefined;

/** Where the environment comes from, and the rules that span several variables. */
export interface ReadConfigOptions<C> {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly rules?: readonly ConfigRule<C>[];
}

/**
 * Reads a table of fields from an environment. A variable set to the empty string counts as not set, as
 * compose files and shells produce them. Production is `NODE_ENV=production`.
 *
 * @throws {ConfigError} naming every variable that is missing or not acceptable.
 */
export function readConfig<F extends Record<string, Field<unknown>>>(
  fields: F,
  { env, rules = [] }: ReadConfigOptions<ConfigOf<F>>,
): ConfigOf<F> {
  const production = env.NODE_ENV === 'production';
  const values: Record<string, unknown> = {};
  const findings: ConfigFinding[] = [];
  for (const [key, field] of Object.entries(fields)) {
    const text = env[field.name]?.trim();
    const value = text ? field.parse(text, production) : field.fallback(production);
    if (value === missing || (text && value === undefined)) {
      const got = text ? field.shown(text) : 'nothing';
      findings.push({ name: field.name, got, wants: field.wants(production) });
    } else {
      values[key] = value;
    }
  }
  const given = (key: keyof F) =>
    values[key as string] !== undefined || Boolean(env[fields[key]?.name ?? '']?.trim());
  for (const rule of rules) findings.push(...[rule(values as Partial<ConfigOf<F>>, given) ?? []].flat());
  if (findings.length > 0) throw new ConfigError(findings);
  return Object.freeze(values) as ConfigOf<F>;
}

function hidden(text: string): string {
  return `a value of ${Buffer.byteLength(text)} bytes (not shown)`;
}

/** Not where somebody put a secret into a variable that is none: a password in a URL, a key instead of its path. */
function quoted(text: string): string {
  return /@|-----BEGIN/.test(text) ? hidden(text) : JSON.stringify(text);
}

/** A rule: at least one of these variables is set. */
export function atLeastOne<F extends Record<string, Field<unknown>>>(
  fields: F,
  ...keys: (keyof F)[]
): ConfigRule<ConfigOf<F>> {
  return (_, given) =>
    keys.some(given)
      ? undefined
      : {
          name: keys.map((key) => fields[key]?.name).join(' or '),
          got: 'nothing',
          wants: 'at least one of them',
        };
}

/** One row of the documentation of a table of fields. */
export interface ConfigRow {
  readonly name: string;
  readonly type: string;
  readonly default: string;
  readonly required: 'always' | 'in production' | 'no';
  readonly secret: boolean;
  readonly description: string;
}

/** The rows of the generated documentation table, in the order of the fields. */
export function describeConfig(fields: Record<string, Field<unknown>>): ConfigRow[] {
  return Object.values(fields).map((field) => ({
    name: field.name,
    type: field.type,
    default: field.defaultText,
    required:
      field.fallback(false) === missing
        ? 'always'
        : field.fallback(true) === missing
          ? 'in production'
          : 'no',
    secret: field.secret,
    description: field.description,
  }));
}

interface Kind<T> {
  readonly type: string;
  readonly secret?: boolean;
  wants(production: boolean): string;
  parse(text: string, production: boolean): T | undefined;
  /** How a wrong value is shown, when it is no secret and its text alone does not say what is wrong. */
  shown?(text: string): string;
  /** How the documentation writes a default value. */
  write?(value: T): string;
}

function field<T, const O extends FieldOptions<T>>(
  name: string,
  options: O,
  kind: Kind<T>,
): Field<Value<T, O>> {
  const byProduction = options.default as T | ((production: boolean) => T) | undefined;
  const fallback = (production: boolean): T | undefined | typeof missing => {
    if (typeof byProduction === 'function') return (byProduction as (production: boolean) => T)(production);
    if (byProduction !== undefined) return byProduction;
    if (!production && options.developmentDefault !== undefined) return options.developmentDefault;
    return options.optional ? undefined : missing;
  };
  const documented = [options.default, options.developmentDefault].find(
    (value) => value !== undefined && typeof value !== 'function',
  ) as T | undefined;
  return {
    name,
    type: kind.type,
    description: options.description,
    secret: kind.secret ?? false,
    wants: kind.wants,
    shown: kind.secret ? hidden : (kind.shown ?? quoted),
    parse: kind.parse,
    fallback,
    defaultText:
      options.defaultText ??
      (documented === undefined ? '' : (kind.write?.(documented) ?? String(documented))),
  } as Field<Value<T, O>>;
}

/** Any text. */
export function text<const O extends FieldOptions<string>>(
  name: string,
  options: O,
): Field<Value<string, O>> {
  return field<string, O>(name, options, { type: 'text', wants: () => 'a text', parse: (value) => value });
}

/** A whole number between `min` (default 0) and `max`, both included. */
export function integer<
  const O extends FieldOptions<number> & { readonly min?: number; readonly max?: number },
>(name: string, options: O): Field<Value<number, O>> {
  const { min = 0, max = Number.MAX_SAFE_INTEGER } = options;
  return field<number, O>(name, options, {
    type: 'integer',
    wants: () =>
      max === Number.MAX_SAFE_INTEGER ? `a whole number from ${min}` : `a whole number from ${min} to ${max}`,
    parse: (value) => {
      const number = /^-?\d+$/.test(value) ? Number(value) : Number.NaN;
      return number >= min && number <= max ? number : undefined;
    },
  });
}

/** A share from 0 to 1, as a decimal number. */
export function ratio<const O extends FieldOptions<number>>(
  name: string,
  options: O,
): Field<Value<number, O>> {
  return field<number, O>(name, options, {
    type: 'number from 0 to 1',
    wants: () => 'a number from 0 to 1, such as 0.01',
    parse: (value) => {
      const number = /^(?:\d+|\d*\.\d+)$/.test(value) ? Number(value) : Number.NaN;
      return number >= 0 && number <= 1 ? number : undefined;
    },
  });
}

/** `true` or `false`; also `1`/`0`, `yes`/`no`, `on`/`off`. */
export function flag<const O extends FieldOptions<boolean>>(
  name: string,
  options: O,
): Field<Value<boolean, O>> {
  return field<boolean, O>(name, options, {
    type: 'boolean',
    wants: () => 'true or false',
    parse: (value) => {
      if (/^(true|1|yes|on)$/i.test(value)) return true;
      return /^(false|0|no|off)$/i.test(value) ? false : undefined;
    },
  });
}

/** The options of {@link url}. */
export interface UrlOptions extends FieldOptions<string> {
  /** Accepted schemes without the colon, for example `['http', 'https']`. */
  readonly schemes: readonly string[];
  /** Several URLs, separated by commas, are accepted as well. */
  readonly several?: boolean;
  /** The URL may hold a password: treated as a secret. */
  readonly secret?: boolean;
  /** Whether a user and a password may stand in it. Default: yes. */
  readonly login?: boolean;
}

/** An absolute URL of one of the given schemes, kept as the text it was; of several, no empty ones between commas. */
export function url<const O extends UrlOptions>(name: string, options: O): Field<Value<string, O>> {
  const { schemes, several = false, secret = false, login = true } = options;
  const accepted = (value: string) => {
    if (!URL.canParse(value)) return false;
    const { protocol, username, password } = new URL(value);
    return schemes.includes(protocol.slice(0, -1)) && (login || (username === '' && password === ''));
  };
  return field<string, O>(name, options, {
    type: several ? 'URLs, comma-separated' : 'URL',
    secret,
    wants: () =>
      `${several ? 'one or more URLs that begin' : 'a URL that begins'} ${schemes.map((s) => `${s}://`).join(' or ')}${
        login ? '' : ', without a user or password'
      }`,
    parse: (value) => {
      const urls = several ? splitList(value) : [value];
      return urls.length > 0 && urls.every(accepted) ? urls.join(',') : undefined;
    },
  });
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A span of time such as `250ms`, `30s`, `5m`, `1h` or `7d`, read into milliseconds. */
export function duration<
  const O extends FieldOptions<number> & { readonly min?: number; readonly max?: number },
>(name: string, options: O): Field<Value<number, O>> {
  const { min = 0, max = Number.MAX_SAFE_INTEGER } = options;
  return field<number, O>(name, options, {
    type: 'duration',
    wants: () =>
      max === Number.MAX_SAFE_INTEGER
        ? `a duration from ${writeDuration(min)}, such as 500ms, 30s, 5m or 1h`
        : `a duration from ${writeDuration(min)} to ${writeDuration(max)}, such as 500ms, 30s, 5m or 1h`,
    parse: (value) => {
      const match = /^(\d+)(ms|s|m|h|d)$/.exec(value);
      const ms = match ? Number(match[1]) * (UNITS[match[2] as string] as number) : Number.NaN;
      return ms >= min && ms <= max ? ms : undefined;
    },
    write: writeDuration,
  });
}

function writeDuration(ms: number): string {
  const [unit, size] = Object.entries(UNITS)
    .reverse()
    .find(([, length]) => ms >= length && ms % length === 0) ?? ['ms', 1];
  return `${ms / size}${unit}`;
}

/** The options of {@link list}. */
export interface ListOptions extends FieldOptions<readonly string[]> {
  /** Whether an entry is good; any text is where it is not given. */
  readonly accepts?: (entry: string) => boolean;
  /** What the entries are, in the plural, as the beginning of "… separated by commas". */
  readonly entry?: string;
}

/** Texts separated by commas; blanks around them do not count. */
export function list<const O extends ListOptions>(
  name: string,
  options: O,
): Field<Value<readonly string[], O>> {
  const { accepts = () => true, entry = 'texts' } = options;
  return field<readonly string[], O>(name, options, {
    type: 'list, comma-separated',
    wants: () => `${entry}, separated by commas`,
    parse: (value) => {
      const entries = splitList(value);
      return entries.every(accepts) ? Object.freeze(entries) : undefined;
    },
    write: (value) => value.join(','),
  });
}

function splitList(value: string): string[] {
  return value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

/** One of a fixed set of words. */
export function choice<const W extends string, const O extends FieldOptions<NoInfer<W>>>(
  name: string,
  words: readonly W[],
  options: O,
): Field<Value<W, O>> {
  return field<W, O>(name, options, {
    type: words.join(' | '),
    wants: () => `one of ${words.join(', ')}`,
    parse: (value) => words.find((word) => word === value),
  });
}

/** A secret takes no default: a built-in secret is one that everybody knows. */
export interface SecretOptions {
  readonly description: string;
  readonly optional?: boolean;
  /** The least length in bytes in production; outside production one byte is enough. */
  readonly minBytes?: number;
  /** Several secrets, separated by commas, are accepted as well; each has to be long enough. */
  readonly several?: boolean;
}

/** A secret: never shown, never given a default, in production no shorter than `minBytes`. */
export function secret<const O extends SecretOptions>(name: string, options: O): Field<Value<string, O>> {
  const { minBytes = 1, several = false } = options;
  return field<string, O>(name, options, {
    type: 'secret',
    secret: true,
    wants: (production) => (production && minBytes > 1 ? `at least ${minBytes} bytes` : 'a secret'),
    parse: (value, production) => {
      const secrets = several ? splitList(value) : [value];
      const enough = secrets.every((one) => Buffer.byteLength(one) >= (production ? minBytes : 1));
      return enough && secrets.length > 0 ? value : undefined;
    },
  });
}

/** What a file has to hold. */
export interface FileContent {
  /** As the end of a sentence: "a file with …". */
  readonly name: string;
  /** @throws when the text is something else */
  check(text: string): unknown;
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** PEM certificates: all of them in a file, in their order. Throws for a text that holds none. */
export function certificatesOf(text: string): X509Certificate[] {
  const found = (text.match(CERTIFICATE) ?? []).map((pem) => new X509Certificate(pem));
  if (found.length === 0) throw new Error('no certificate');
  return found;
}

export const CERTIFICATES: FileContent = { name: 'certificates (PEM)', check: certificatesOf };
export const PRIVATE_KEY: FileContent = {
  name: 'a private key (PEM, no passphrase)',
  check: createPrivateKey,
};

const NATS_CREDENTIALS: FileContent = {
  name: 'NATS credentials',
  check(text) {
    if (!/BEGIN NATS USER JWT/.test(text) || !/BEGIN USER NKEY SEED/.test(text)) throw new Error('neither');
  },
};

/** The path of a file that can be read and holds what it should; kept as the path, for files may be renewed. */
export function file<const O extends FieldOptions<string>>(
  name: string,
  content: FileContent,
  options: O,
): Field<Value<string, O>> {
  return field<string, O>(name, options, {
    type: 'path',
    wants: () => `the path of a file with ${content.name}`,
    parse: (path) => (wrongWith(path, content) ? undefined : path),
    shown: (path) => `${quoted(path)}, ${wrongWith(path, content)}`,
  });
}

/** What is wrong with a file, as a part of a sentence; nothing of what it holds. */
function wrongWith(path: string, content: FileContent): string | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return `which cannot be read (${(error as NodeJS.ErrnoException).code})`;
  }
  try {
    content.check(text);
    return undefined;
  } catch {
    return 'which holds something else';
  }
}

/** The variables that several apps read, defined once. An app picks what it needs into its own table. */
export const shared = {
  nodeEnv: choice('NODE_ENV', ['development', 'test', 'production'], {
    default: 'development',
    description: 'In production no secret has a default, secrets have a minimum length, and HOST opens up',
  }),
  port: integer('PORT', {
    min: 0,
    max: 65_535,
    default: 8080,
    description: 'Port for HTTP; 0 takes a free one',
  }),
  host: text('HOST', {
    default: (production) => (production ? '0.0.0.0' : '127.0.0.1'),
    defaultText: '0.0.0.0 in production, else 127.0.0.1',
    description: 'Address to listen on',
  }),
  natsUrl: url('NATS_URL', {
    schemes: ['nats', 'tls'],
    several: true,
    secret: true,
    developmentDefault: 'nats://127.0.0.1:4222',
    description: 'NATS servers of one cluster; may hold user and password, or a token. tls:// demands TLS',
  }),
  natsUser: text('NATS_USER', { optional: true, description: 'User for NATS, when it is not in NATS_URL' }),
  natsPassword: secret('NATS_PASSWORD', { optional: true, description: 'Password of NATS_USER' }),
  natsNkeySeed: secret('NATS_NKEY_SEED', {
    optional: true,
    description: 'Seed of an nkey of a NATS user (SU…), instead of NATS_USER',
  }),
  natsCreds: file('NATS_CREDS', NATS_CREDENTIALS, {
    optional: true,
    description: 'NATS credentials file (JWT and nkey seed), instead of NATS_USER',
  }),
  natsCa: file('NATS_CA', CERTIFICATES, {
    optional: true,
    description:
      'Authorities that NATS servers are trusted by, instead of the public ones. Demands TLS, as tls:// does',
  }),
  natsCert: file('NATS_CERT', CERTIFICATES, {
    optional: true,
    description: 'Certificate to show to NATS servers that ask for one, with its chain. Demands TLS',
  }),
  natsKey: file('NATS_KEY', PRIVATE_KEY, { optional: true, description: 'Private key of NATS_CERT' }),
  databaseUrl: url('DATABASE_URL', {
    schemes: ['postgres', 'postgresql'],
    secret: true,
    description:
      'PostgreSQL database; each app keeps to a schema of its own. `sslmode` in its query: disable (no TLS), require ' +
      'or verify-full (TLS, and the server proves its name), verify-ca (TLS, any name that DATABASE_CA signed)',
  }),
  databaseCa: file('DATABASE_CA', CERTIFICATES, {
    optional: true,
    description:
      'Authorities that PostgreSQL is trusted by, instead of the public ones. Without sslmode it demands verify-full',
  }),
  databaseCert: file('DATABASE_CERT', CERTIFICATES, {
    optional: true,
    description: 'Certificate to show to PostgreSQL, with its chain. Demands TLS, as DATABASE_CA does',
  }),
  databaseKey: file('DATABASE_KEY', PRIVATE_KEY, {
    optional: true,
    description: 'Private key of DATABASE_CERT',
  }),
  databasePool: integer('DATABASE_POOL', {
    min: 1,
    max: 1_000,
    default: 10,
    description: 'Connections to PostgreSQL that one process opens at most',
  }),
  jwtSecret: secret('JWT_SECRET', {
    optional: true,
    minBytes: 32,
    description: 'Shared secret (HS256) of the tokens that end users and services bring',
  }),
  jwksUrl: url('JWKS_URL', {
    schemes: ['http', 'https'],
    // `fetch` refuses such a URL: no token could be verified.
    login: false,
    optional: true,
    description: "The identity provider's public keys, for tokens with asymmetric signatures",
  }),
  jwtIssuer: text('JWT_ISSUER', {
    optional: true,
    description: 'The `iss` that tokens have to carry; when not set it is not checked',
  }),
  keySecret: secret('KEY_SECRET', {
    minBytes: 32,
    several: true,
    description:
      'Encrypts socket and stream keys. Of several the first one encrypts and all decrypt, for rotation',
  }),
  instance: text('INSTANCE', {
    default: 'main',
    description:
      'Name of this deployment of the platform: the scope of local topics. All replicas of all apps share it',
  }),
  courierCompat: flag('COURIER_COMPAT', {
    default: false,
    description:
      'Serves clients of the original Courier: its answers and frames, keys that live as long as their token, tokens without an end',
  }),
  logLevel: choice('LOG_LEVEL', ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
    default: 'info',
    description: 'The least important lines that are still logged',
  }),
  logFormat: choice('LOG_FORMAT', ['json', 'text'], {
    optional: true,
    defaultText: 'text on a terminal, else json',
    description: 'How lines of the log are written: for machines, or for who reads them',
  }),
  otlpEndpoint: url('OTEL_EXPORTER_OTLP_ENDPOINT', {
    schemes: ['http', 'https'],
    optional: true,
    description:
      'Collector that takes traces as OTLP over HTTP, without /v1/traces. Not set: nothing is traced',
  }),
  otlpHeaders: secret('OTEL_EXPORTER_OTLP_HEADERS', {
    optional: true,
    description: 'Headers for the collector: name=value, comma-separated, percent-encoded',
  }),
} as const;

/** How an app reaches NATS: a part of every app's table. */
export const natsFields = {
  natsUrl: shared.natsUrl,
  natsUser: shared.natsUser,
  natsPassword: shared.natsPassword,
  natsNkeySeed: shared.natsNkeySeed,
  natsCreds: shared.natsCreds,
  natsCa: shared.natsCa,
  natsCert: shared.natsCert,
  natsKey: shared.natsKey,
} as const;

/** How an app reaches PostgreSQL: a part of the table of each that does. */
export const databaseFields = {
  databaseUrl: shared.databaseUrl,
  databaseCa: shared.databaseCa,
  databaseCert: shared.databaseCert,
  databaseKey: shared.databaseKey,
} as const;
