/** Certificates made on the spot, by an authority that nobody else trusts. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const HOUR = 3_600_000;

export interface CertificateOptions {
  /** Names and addresses that it is for. Default: `localhost` and `127.0.0.1`. */
  readonly hosts?: readonly string[];
  /** It was valid, until an hour ago. */
  readonly expired?: boolean;
}

/** Paths of PEM files. */
export interface TestCertificate {
  readonly certFile: string;
  readonly keyFile: string;
}

export interface TestAuthority {
  /** Its own certificate. */
  readonly caFile: string;
  /** Makes `<name>.crt` and `<name>.key`, good for servers and clients alike. */
  issue(name: string, options?: CertificateOptions): Promise<TestCertificate>;
}

/** A new authority, which keeps its files in `dir`. */
export async function createAuthority(dir: string, name = 'authority'): Promise<TestAuthority> {
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, false, ['sign', 'verify']);
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: ALGORITHM,
    notBefore: new Date(Date.now() - 24 * HOUR),
    notAfter: new Date(Date.now() + 24 * HOUR),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const caFile = join(dir, `${name}.crt`);
  await writeFile(caFile, root.toString('pem'));

  return {
    caFile,
    async issue(subject, { hosts = ['localhost', '127.0.0.1'], expired = false } = {}) {
      const own = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
      const certificate = await x509.X509CertificateGenerator.create({
        subject: `CN=${subject}`,
        issuer: root.subject,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: ALGORITHM,
        notBefore: new Date(Date.now() - 12 * HOUR),
        notAfter: new Date(Date.now() + (expired ? -1 : 12) * HOUR),
        extensions: [
          new x509.SubjectAlternativeNameExtension(
            hosts.map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value })),
          ),
          new x509.ExtendedKeyUsageExtension([
            x509.ExtendedKeyUsage.serverAuth,
            x509.ExtendedKeyUsage.clientAuth,
          ]),
          await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
        ],
      });
      const files = { certFile: join(dir, `${subject}.crt`), keyFile: join(dir, `${subject}.key`) };
      const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', own.privateKey);
      await writeFile(files.certFile, certificate.toString('pem'));
      await writeFile(files.keyFile, x509.PemConverter.encode(pkcs8, 'PRIVATE KEY'), { mode: 0o600 });
      return files;
    },
  };
}
