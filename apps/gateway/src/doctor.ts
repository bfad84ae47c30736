/** What the gateway needs, looked at: its secrets, what browsers are told, and NATS. */
import {
  examination,
  examineNats,
  type Finding,
  finding,
  isLoopback,
  jetStreamFindings,
  loginFindings,
  ok,
  processFindings,
  signingFindings,
} from '@posthorn/service';
import { type GatewayConfig, readGatewayConfig } from './config.js';

/** Each socket takes one: ten thousand connections, and room for the rest. */
const FILES = 16_384;

/** Looks at everything, with the gateway's own login. */
export const examine = examination(readGatewayConfig, async (config, production) => [
  ...configurationFindings(config, production),
  ...(await examineNats('gateway', config, production, async (nc) => (await jetStreamFindings(nc)).findings)),
]);

/** What can be said without asking anybody. */
export function configurationFindings(config: GatewayConfig, production: boolean): Finding[] {
  return [
    ...processFindings(FILES),
    ...signingFindings(config, production),
    ...loginFindings(config),
    originsFinding(config, production),
    publicUrlFinding(config, production),
    proxyFinding(config),
  ];
}

function originsFinding({ allowedOrigins }: GatewayConfig, production: boolean): Finding {
  const listed = allowedOrigins.filter((origin) => origin !== '*');
  const all = allowedOrigins.includes('*');
  if (!production) return ok('origins.allowed', all ? 'every origin, in development' : shown(listed));
  if (all)
    return finding(
      'origins.allowed',
      'warning',
      'ALLOWED_ORIGINS is *',
      "Name the origins of the product's pages: https://app.example.com,https://admin.example.com.",
    );
  if (listed.length === 0)
    return finding(
      'origins.allowed',
      'warning',
      'ALLOWED_ORIGINS is empty: no page can open a socket',
      "Name the origins of the product's pages; leave it empty where no browser is a client.",
    );
  const plain = listed.filter(
    (origin) => origin.startsWith('http:') && !isLoopback(new URL(origin).hostname),
  );
  if (plain.length > 0)
    return finding(
      'origins.allowed',
      'warning',
      `ALLOWED_ORIGINS has pages without TLS: ${plain.join(', ')}`,
      'Serve these pages by https://: what comes without TLS can be replaced on its way, and then calls with the token of whoever looks at it.',
    );
  return ok('origins.allowed', shown(listed));
}

function shown(origins: readonly string[]): string {
  return origins.length > 0 ? origins.join(', ') : 'no origin';
}

function publicUrlFinding({ publicWsUrl }: GatewayConfig, production: boolean): Finding {
  if (publicWsUrl === undefined)
    return production
      ? finding(
          'origins.public-url',
          'failure',
          'PUBLIC_WS_URL is not set: signed socket URLs lead to localhost',
          'Set it to where browsers reach the gateway: wss://live.example.com.',
        )
      : ok('origins.public-url', 'localhost, in development');
  const { protocol, host, hostname } = new URL(publicWsUrl);
  const found = `PUBLIC_WS_URL is ${protocol}//${host}`;
  if (!production) return ok('origins.public-url', found);
  if (isLoopback(hostname))
    return finding(
      'origins.public-url',
      'warning',
      `${found}, which is reached from this machine alone`,
      'Set it to where browsers reach the gateway: wss://live.example.com.',
    );
  if (protocol === 'ws:')
    return finding(
      'origins.public-url',
      'warning',
      found,
      'Put TLS before the gateway (an ingress, a proxy), and set PUBLIC_WS_URL to wss://.',
    );
  return ok('origins.public-url', found);
}

function proxyFinding({ publicWsUrl, trustProxy }: GatewayConfig): Finding {
  if (!publicWsUrl?.startsWith('wss:') || trustProxy)
    return ok(
      'origins.proxy',
      `TRUST_PROXY is ${trustProxy}, and PUBLIC_WS_URL ${publicWsUrl?.split(':')[0] ?? 'not set'}`,
    );
  return finding(
    'origins.proxy',
    'warning',
    'PUBLIC_WS_URL is wss://, and TRUST_PROXY is false',
    'Set TRUST_PROXY=true where the proxy that ends TLS sets X-Forwarded-For itself.',
  );
}
