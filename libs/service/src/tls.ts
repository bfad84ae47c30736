/** What goes wrong with TLS, in the words of an operator: which variable, and what about it. */
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type ConfigFinding, certificatesOf } from './config.js';
import { StartError } from './start-error.js';

/** A variable that names a file. */
interface FileVariable {
  readonly name: string;
  /** Its path, when it is set and acceptable by itself. */
  readonly file: string | undefined;
}

/**
 * What is wrong with a certificate of ours and its key together, in variables that are acceptable by themselves.
 * `given`: the variable is set.
 */
export function certificateFindings(
  cert: FileVariable & { readonly given: boolean },
  key: FileVariable & { readonly given: boolean },
): ConfigFinding[] {
  if (cert.given !== key.given) {
    const missing = cert.given ? key : cert;
    return [
      { name: missing.name, got: 'nothing', wants: `a path: ${cert.name} and ${key.name} go together` },
    ];
  }
  if (!cert.file) return [];
  // The certificate comes first, the chain after it.
  const [own] = certificatesOf(readFileSync(cert.file, 'utf8'));
  if (!own) return [];
  const findings: ConfigFinding[] = [];
  const now = Date.now();
  if (now > Date.parse(own.validTo) || now < Date.parse(own.validFrom)) {
    const got = `${JSON.stringify(cert.file)}, valid from ${own.validFrom} to ${own.validTo}`;
    findings.push({ name: cert.name, got, wants: 'a certificate that is valid now' });
  }
  if (key.file && !own.checkPrivateKey(createPrivateKey(readFileSync(key.file)))) {
    const wants = `the key of the first certificate in ${cert.name}`;
    findings.push({ name: key.name, got: `${JSON.stringify(key.file)}, which holds another key`, wants });
  }
  return findings;
}

/** What {@link tlsRefusal} names. */
export interface TlsPeer {
  /** `NATS at nats:4222`. Never with a password. */
  readonly server: string;
  /** What of our configuration demands TLS, as a sentence. */
  readonly demandedBy: string;
  readonly ca: FileVariable;
  readonly cert: FileVariable;
}

/** Codes of OpenSSL for a chain that ends in nobody whom we trust. */
const UNTRUSTED = new Set([
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'INVALID_CA',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/**
 * The error of a connection that TLS, or the lack of it, prevented, with what to look at; undefined for other errors.
 * Waiting cures none of them: the process ends, and says so.
 */
export function tlsRefusal(error: unknown, peer: TlsPeer): StartError | undefined {
  for (const one of chain(error)) {
    const reason = reasonOf(one, peer);
    if (!reason) continue;
    const code = typeof one.code === 'string' ? ` (${one.code})` : '';
    return new StartError(`No connection to ${peer.server}: ${reason}${code}`, { cause: error });
  }
  return undefined;
}

interface Failure {
  readonly code?: unknown;
  readonly message?: unknown;
  /** What Node says of a certificate for other names, without the name. */
  readonly reason?: unknown;
}

function reasonOf({ code, message, reason }: Failure, { ca, cert, demandedBy }: TlsPeer): string | undefined {
  const text = typeof message === 'string' ? message : '';
  if (typeof code === 'string') {
    if (UNTRUSTED.has(code)) {
      return ca.file
        ? `its certificate is not signed by an authority in ${ca.name} (${ca.file})`
        : `its certificate is not signed by a public authority; ${ca.name} names the file of a private one`;
    }
    if (code === 'CERT_HAS_EXPIRED') return 'its certificate, or that of its authority, has expired';
    if (code === 'CERT_NOT_YET_VALID')
      return 'its certificate is not valid yet, by the clock of this machine';
    if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
      return `its certificate is for another name. ${reason ?? text}`;
    if (/^ERR_SSL_.*ALERT_.*(CERT|UNKNOWN_CA)/.test(code)) return refusedOurs(cert);
    if (code.startsWith('ERR_SSL_')) return `no TLS that both sides know: ${text}`;
  }
  // nats.js and pg, of a server without TLS.
  if (/^server does not support 'tls'|^The server does not support SSL connections/.test(text)) {
    return `it offers no TLS; ${demandedBy}`;
  }
  return undefined;
}

function refusedOurs(cert: FileVariable): string {
  return cert.file
    ? `it does not accept the certificate in ${cert.name} (${cert.file})`
    : `it asks for a certificate, and ${cert.name} names none`;
}

/** An error and those that it wraps. */
function* chain(error: unknown): Generator<Failure> {
  if (typeof error !== 'object' || error === null) return;
  yield error as Failure;
  const { cause, driverError } = error as { cause?: unknown; driverError?: unknown };
  yield* chain(driverError ?? cause);
}
