/** k8s/components/nats-tls: the servers of k8s/base, with TLS for clients and between themselves. */

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectSocket, type Socket } from 'node:net';
import { connect as connectTls, createServer } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connect } from '@nats-io/transport-node';
import { createAuthority, eventually, type TempDir, type TestCertificate, tempDir } from '@posthorn/testing';
import { newSecrets } from '../tools/secrets.mjs';
import { type NatsFromFiles, startNatsFromFiles } from './support/nats-files.js';

const FILE = 'k8s/components/nats-tls/nats.conf';
const secrets = newSecrets();
let home: TempDir;
let caFile: string;
let own: TestCertificate;
/** Of another authority. */
let stranger: TestCertificate & { caFile: string };
let nats: NatsFromFiles;

beforeAll(async () => {
  home = await tempDir();
  const strangers = await createAuthority(home.path, 'strangers');
  stranger = { ...(await strangers.issue('stranger')), caFile: strangers.caFile };
  // Named as cert-manager names them.
  const authority = await createAuthority(home.path, 'ca');
  own = await authority.issue('tls');
  caFile = authority.caFile;
  nats = await startNatsFromFiles(FILE, { size: 3, env: secrets, tls: home.path });
});
afterAll(async () => {
  await nats?.[Symbol.asyncDispose]();
  await home?.[Symbol.asyncDispose]();
});

const log = (servers: string, trusted: string) =>
  connect({
    servers,
    user: 'gateway',
    ...(secrets.NATS_PASSWORD_GATEWAY && { pass: secrets.NATS_PASSWORD_GATEWAY }),
    maxReconnectAttempts: 0,
    tls: { caFile: trusted },
  });

const pem = ({ certFile, keyFile }: TestCertificate) => ({
  cert: readFileSync(certFile),
  key: readFileSync(keyFile),
});

/** All that a server says until it hangs up, or greets. One that does neither fails the test by its time. */
function heard(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const end = () => {
      socket.destroy();
      resolve(text);
    };
    // A refusal is an error of TLS or of the connection; `close` comes after it.
    socket.on('error', () => {});
    socket.on('close', end);
    socket.on('data', (chunk) => {
      text += chunk;
      if (/^(INFO|PONG)/m.test(text)) end();
    });
  });
}

describe('the configuration of the NATS cluster with TLS', () => {
  it('is that of the cluster without, and two blocks of TLS', () => {
    const read = (file: string) => readFileSync(file, 'utf8').replace(/^#.*\n/, '');
    const without = read(FILE).replace(/(\n *#[^\n]*)?\n( *)tls \{\n(?:\2 .*\n)+?\2\}(?:\n(?=\n))?/g, '');
    expect(without).toBe(read('k8s/base/nats/nats.conf'));
  });

  it('makes one JetStream of three servers', async () => {
    await eventually(async () => {
      const seen = (await nats.jetstream()).map(({ meta_cluster }) => meta_cluster);
      return seen.every((one) => one?.cluster_size === 3 && one.leader && one.leader === seen[0]?.leader);
    });
  });

  it('lets an app in that trusts its authority, by its password, on any server', async () => {
    for (const url of nats.urls) {
      const connection = await log(url, caFile);
      expect(connection.info).toMatchObject({ tls_required: true });
      await connection.close();
    }
  });

  it('does not convince an app that trusts another authority', async () => {
    await expect(log(nats.urls[0] ?? '', stranger.caFile)).rejects.toMatchObject({
      code: expect.stringMatching(/^(UNABLE_TO_VERIFY|SELF_SIGNED)/),
    });
  });

  it('takes no login in plain text', async () => {
    const { port } = new URL(nats.urls[0] ?? '');
    const socket = connectSocket(Number(port), '127.0.0.1');
    await once(socket, 'data');
    const login = { user: 'gateway', pass: secrets.NATS_PASSWORD_GATEWAY, verbose: false };
    socket.write(`CONNECT ${JSON.stringify(login)}\r\nPING\r\n`);
    expect(await heard(socket)).not.toContain('PONG');
  });
});

describe('a route between servers', () => {
  async function open(tls: { cert?: Buffer; key?: Buffer }): Promise<Socket> {
    const [port = 0] = await nats.routePorts();
    return connectTls({ port, host: '127.0.0.1', ca: readFileSync(caFile), ...tls });
  }

  it('is open to a server with a certificate of the authority', async () => {
    expect(await heard(await open(pem(own)))).toContain('"cluster":"posthorn"');
  });

  it.each<[string, () => Promise<Socket>]>([
    ['shows no certificate', () => open({})],
    ['shows one of another authority', () => open(pem(stranger))],
    [
      'speaks plain text',
      async () => {
        const [port = 0] = await nats.routePorts();
        const socket = connectSocket(port, '127.0.0.1');
        socket.write('INFO {}\r\n');
        return socket;
      },
    ],
  ])('is closed to whoever %s', async (_, opened) => {
    expect(await heard(await opened())).not.toContain('INFO');
  });

  it('is not opened to a server that shows a certificate of another authority', async () => {
    const [port = 0] = await nats.routePorts();
    await nats.kill(0);
    const listener = createServer(pem(stranger)).listen(port, '127.0.0.1');
    try {
      const refused = once(listener, 'tlsClientError').then(([error]) => error.code);
      const opened = once(listener, 'secureConnection').then(() => 'opened');
      expect(await Promise.race([refused, opened])).toMatch(/ALERT/);
    } finally {
      listener.close();
    }
  });
});
