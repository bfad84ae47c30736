/** TLS to PostgreSQL: what `sslmode` and the files mean, decided here and not by the driver. */
import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import {
  type ConfigFinding,
  type ConfigRule,
  certificateFindings,
  StartError,
  tlsRefusal,
} from '@posthorn/service';

/** Paths of PEM files, read once. */
export interface DatabaseTls {
  /** The authorities that the server is trusted by. Not given: the public ones that Node knows. */
  readonly caFile?: string | undefined;
  /** Our certificate with its chain, for servers that ask for one; goes with `keyFile`. */
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
}

/** The part of an app's configuration that says where its database is, and whom it trusts there. */
export interface DatabaseAddress {
  readonly databaseUrl: string;
  readonly databaseCa: string | undefined;
  readonly databaseCert: string | undefined;
  readonly databaseKey: string | undefined;
}

/** {@link DatabaseAddress} as the options of a connection. */
export function databaseSettings(config: DatabaseAddress): { url: string; tls: DatabaseTls } {
  const { databaseUrl: url, databaseCa: caFile, databaseCert: certFile, databaseKey: keyFile } = config;
  return { url, tls: { caFile, certFile, keyFile } };
}

/**
 * `disable`: no TLS. `require` is here what `verify-full` is: TLS, with a certificate of a trusted authority for the
 * host of the URL. (libpq's `require` believes everybody, and so protects from nobody who can stand in between.)
 * `verify-ca`: a certificate of an authority in DATABASE_CA, whatever its name. The modes that may end in plain text
 * or verify nothing, `allow`, `prefer` and `no-verify`, are refused.
 */
const MODES = ['disable', 'require', 'verify-ca', 'verify-full'] as const;
type Mode = (typeof MODES)[number];

/** The driver would read these by rules of its own, and in place of ours. */
const DRIVERS_OWN = /^(ssl(?!mode$).*|uselibpqcompat)$/i;

/** The mode of a URL, `undefined` when it has one that is none of ours. */
function modeOf(url: URL, tls: DatabaseTls): Mode | undefined {
  const given = url.searchParams.get('sslmode');
  if (given === null) return tls.caFile || tls.certFile ? 'verify-full' : 'disable';
  return MODES.find((mode) => mode === given);
}

/** A rule of every table with a database: a mode that we know, and files that go with it. */
export const databaseTls: ConfigRule<DatabaseAddress> = (config, given) => {
  const findings: ConfigFinding[] = certificateFindings(
    { name: 'DATABASE_CERT', file: config.databaseCert, given: given('databaseCert') },
    { name: 'DATABASE_KEY', file: config.databaseKey, given: given('databaseKey') },
  );
  if (config.databaseUrl === undefined) return findings;
  const { searchParams } = new URL(config.databaseUrl);
  const files = [given('databaseCa') && 'DATABASE_CA', given('databaseCert') && 'DATABASE_CERT'].filter(
    Boolean,
  );
  const mode = searchParams.get('sslmode');
  if (mode !== null && !MODES.some((one) => one === mode)) {
    const wants = `sslmode ${MODES.join(', ')}, or none`;
    findings.push({ name: 'DATABASE_URL', got: `sslmode=${JSON.stringify(mode)}`, wants });
  }
  const others = [...new Set(searchParams.keys())].filter((name) => DRIVERS_OWN.test(name));
  if (others.length > 0) {
    const wants = 'sslmode only: DATABASE_CA, DATABASE_CERT and DATABASE_KEY name the files';
    findings.push({ name: 'DATABASE_URL', got: `${others.join(' and ')} in its query`, wants });
  }
  if (mode === 'disable' && files.length > 0) {
    const name = ['DATABASE_URL', ...files].join(' and ');
    findings.push({ name, got: 'sslmode=disable and files for TLS', wants: 'one or the other' });
  }
  if (mode === 'verify-ca' && !given('databaseCa')) {
    const wants =
      'the path of a file with certificates (PEM): sslmode=verify-ca takes any name that they signed';
    findings.push({ name: 'DATABASE_CA', got: 'nothing', wants });
  }
  return findings;
};

/**
 * The driver's options for a URL and its files. The URL loses its `sslmode`, which the driver would read its own way.
 * @throws TypeError for a mode that is none of ours, and for parameters by which the driver would overrule it
 */
export function driverAddress(text: string, tls: DatabaseTls = {}) {
  const url = new URL(text);
  const mode = modeOf(url, tls);
  if (!mode || [...url.searchParams.keys()].some((name) => DRIVERS_OWN.test(name))) {
    throw new TypeError(`of TLS, the URL of a database has sslmode only: ${MODES.join(', ')}`);
  }
  url.searchParams.delete('sslmode');
  return { url: url.href, ssl: mode === 'disable' ? (false as const) : sslOf(mode, tls) };
}

function sslOf(mode: Mode, { caFile, certFile, keyFile }: DatabaseTls): ConnectionOptions {
  return {
    ...(caFile && { ca: readFileSync(caFile, 'utf8') }),
    ...(certFile && { cert: readFileSync(certFile, 'utf8') }),
    ...(keyFile && { key: readFileSync(keyFile, 'utf8') }),
    ...(mode === 'verify-ca' && { checkServerIdentity: () => undefined }),
  };
}

/** What PostgreSQL says of a connection that its pg_hba.conf wants otherwise. */
const WANTS_TLS = /no pg_hba\.conf entry.*(no encryption|SSL off)/;
const WANTS_CERTIFICATE = /requires a valid client certificate/;

/** The error of a connection that TLS, or the lack of it, prevented, with what to look at; undefined for others. */
export function databaseTlsRefusal(
  error: unknown,
  text: string,
  tls: DatabaseTls = {},
): StartError | undefined {
  const { host } = new URL(text);
  const server = `PostgreSQL at ${host}`;
  const cert = { name: 'DATABASE_CERT', file: tls.certFile };
  const refusal = tlsRefusal(error, {
    server,
    demandedBy: 'sslmode in DATABASE_URL, DATABASE_CA and DATABASE_CERT demand it',
    ca: { name: 'DATABASE_CA', file: tls.caFile },
    cert,
  });
  if (refusal) return refusal;
  const message = error instanceof Error ? error.message : '';
  const reason = WANTS_CERTIFICATE.test(message)
    ? `it asks for a certificate, and ${cert.name} names none that it accepts`
    : WANTS_TLS.test(message)
      ? 'it takes no connection of this user without TLS; sslmode=verify-full in DATABASE_URL demands it'
      : undefined;
  return reason === undefined
    ? undefined
    : new StartError(`No connection to ${server}: ${reason} (${message})`, { cause: error });
}
