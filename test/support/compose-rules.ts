/** What docker-compose.yml has to keep to. A rule returns what it found wrong, as sentences. */
import { existsSync, readFileSync } from 'node:fs';
import { newSecrets } from '../../tools/secrets.mjs';
import { APPS, environmentFindings, SECRET_NAMES, shutdownSeconds } from './app-environment.js';
import type { Loose } from './manifests.js';

/** The file, parsed, with its merge keys resolved. */
export type Compose = Loose;

const WITH_DATABASE = ['auth', 'registry', 'notifier'];

function services(compose: Compose): { name: string; service: Loose; env: Map<string, string> }[] {
  return Object.entries<Loose>(compose.services).map(([name, service]) => ({
    name,
    service,
    env: new Map(
      Object.entries<string>(service.environment ?? {}).map(([key, value]) => [key, String(value)]),
    ),
  }));
}

function ours(compose: Compose) {
  return services(compose).filter(({ service }) => service.build !== undefined);
}

export const RULES = {
  'opens nothing but the gateway': (compose: Compose) => [
    ...services(compose)
      .filter(({ name, service }) => (service.ports !== undefined) !== (name === 'gateway'))
      .map(({ name }) => `${name}: ports`),
    ...services(compose)
      .filter(({ service }) => service.network_mode || service.privileged || service.pid)
      .map(({ name }) => `${name}: shares what the machine has`),
  ],

  'lets nobody out who does not verify tokens': (compose: Compose) => [
    ...(compose.networks.inside?.internal ? [] : ['the inner network has a way out']),
    ...services(compose)
      .filter(({ service }) => !service.networks?.includes('inside'))
      .map(({ name }) => `${name}: is not inside`),
    ...services(compose)
      .filter(({ name, service }) => service.networks?.length > 1 && !['gateway', 'auth'].includes(name))
      .map(({ name }) => `${name}: has a way out`),
  ],

  'names the version of each image': (compose: Compose) =>
    services(compose)
      .filter(({ service }) => !/:(?!latest$)[^:/]+$/.test(service.image ?? ''))
      .map(({ name, service }) => `${name}: ${service.image} is any version`),

  'sets every variable that an app demands, and none that it does not know': (compose: Compose) =>
    ours(compose).flatMap(({ name, service, env }) => environmentFindings(name, service.command[0], env)),

  'takes its secrets from the file that npm run secrets writes, and fails without it': (compose: Compose) => {
    const made = Object.keys(newSecrets());
    return services(compose).flatMap(({ name, env }) =>
      [...env]
        .filter(
          ([key, value]) =>
            (SECRET_NAMES.has(key) && key !== 'NATS_URL') || /PASSWORD/.test(key) || value.includes('@'),
        )
        .filter(([key, value]) => {
          const [, from, how] = /^\$\{([A-Z_]+)(:\?|-\})/.exec(value) ?? [];
          // JWKS_URL may stand in for it.
          return !from || !made.includes(from) || (how !== ':?' && key !== 'JWT_SECRET');
        })
        .map(([key]) => `${name}: ${key}`),
    );
  },

  'gives the servers what their configuration asks for': (compose: Compose) => {
    const { volumes, environment } = compose.services.nats;
    const files = volumes
      .map((one: string) => one.split(':')[0])
      .filter((one: string) => one.startsWith('.'));
    const missing = files.filter((file: string) => !existsSync(file));
    const asked = files
      .filter((file: string) => existsSync(file))
      .flatMap((file: string) =>
        [...readFileSync(file, 'utf8').matchAll(/: \$([A-Z_]+)/g)].map(([, name]) => name),
      );
    return [
      ...missing.map((file: string) => `nats: there is no ${file}`),
      ...asked.filter((name: string) => !environment[name]).map((name: string) => `nats: ${name} is missing`),
    ];
  },

  'starts each after what it needs': (compose: Compose) => {
    const needs: Record<string, Record<string, string>> = {
      migrations: { postgres: 'service_healthy' },
      gateway: { nats: 'service_healthy' },
      ...Object.fromEntries(
        WITH_DATABASE.map((app) => [
          app,
          { nats: 'service_healthy', migrations: 'service_completed_successfully' },
        ]),
      ),
    };
    return Object.entries(needs).flatMap(([name, conditions]) =>
      Object.entries(conditions)
        .filter(([other, condition]) => compose.services[name].depends_on?.[other]?.condition !== condition)
        .map(([other, condition]) => `${name}: does not wait for ${other}: ${condition}`),
    );
  },

  'knows of each whether it is well, and brings it back': (compose: Compose) => {
    const byImage = /^HEALTHCHECK .*CMD/m.test(readFileSync('Dockerfile', 'utf8'));
    return services(compose).flatMap(({ name, service }) => {
      const once = service.restart === 'no';
      const checked = service.healthcheck ? !service.healthcheck.disable : byImage && service.build;
      return [
        ...(once === (name === 'migrations') && service.restart ? [] : [`${name}: restart`]),
        ...(checked || once ? [] : [`${name}: no health check`]),
      ];
    });
  },

  'waits for the whole shutdown of an app': (compose: Compose) =>
    ours(compose)
      .filter(({ name }) => (APPS as readonly string[]).includes(name))
      .filter(
        ({ name, service, env }) =>
          !(Number.parseInt(service.stop_grace_period ?? '10s', 10) > shutdownSeconds(name, env)),
      )
      .map(({ name }) => `${name}: is killed before its shutdown is over`),

  'gives no privileges': (compose: Compose) =>
    services(compose).flatMap(({ name, service }) => [
      ...(service.security_opt?.includes('no-new-privileges:true') ? [] : [`${name}: may gain privileges`]),
      // The database's image begins as root, to hand its volume to its own user.
      ...(name === 'postgres' || service.cap_drop?.includes('ALL') ? [] : [`${name}: keeps capabilities`]),
      ...(name === 'postgres' || service.read_only ? [] : [`${name}: may write to its image`]),
    ]),
} as const satisfies Record<string, (compose: Compose) => string[]>;
