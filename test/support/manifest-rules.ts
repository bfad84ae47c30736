/** What every overlay has to keep to. A rule returns what it found wrong, as sentences. */
import { streamConfigs } from '@posthorn/bus/platform';
import { PAYLOAD_LIMIT } from '@posthorn/contracts';
import { readConfig } from '@posthorn/service';
import { GATEWAY_FIELDS } from '../../apps/gateway/src/config.js';
import { REGISTRY_FIELDS } from '../../apps/registry/src/config.js';
import {
  APPS,
  CONFIGURATION,
  environmentFindings,
  SECRET_NAMES,
  shutdownSeconds,
} from './app-environment.js';
import { bytesOf, type Loose, type Manifests, type Peer, selects, type Workload } from './manifests.js';

export type Rule = (manifests: Manifests) => string[] | Promise<string[]>;

/** The keys of the Secret that production brings (k8s/overlays/production/kustomization.yaml). */
const SECRETS = [
  'DATABASE_URL',
  'KEY_SECRET',
  'JWT_SECRET',
  'NATS_PASSWORD_GATEWAY',
  'NATS_PASSWORD_AUTH',
  'NATS_PASSWORD_REGISTRY',
  'NATS_PASSWORD_NOTIFIER',
  'NATS_PASSWORD_ROUTE',
];

/** The Secrets that production brings, and their keys. */
const BROUGHT: Readonly<Record<string, readonly string[]>> = {
  posthorn: SECRETS,
  // k8s/components/nats-tls/kustomization.yaml
  'nats-tls': ['ca.crt', 'tls.crt', 'tls.key'],
};

const WITH_DATABASE = ['auth', 'registry', 'notifier', 'migrations'];

/** The containers of our image. */
function ours(manifests: Manifests) {
  return manifests.workloads.flatMap((workload) =>
    workload.containers
      .filter(({ image }) => /(^|\/)posthorn[:@]/.test(image))
      .map((container) => ({
        ...workload,
        container,
        env: manifests.environment(container),
      })),
  );
}

/** Looks at each container of each workload. */
function eachContainer(check: (container: Loose, workload: Workload, manifests: Manifests) => unknown): Rule {
  return (manifests) =>
    manifests.workloads.flatMap((workload) =>
      workload.containers
        .map((container) => check(container, workload, manifests))
        .filter(Boolean)
        .map((found) => `${workload.title}: ${found}`),
    );
}

export const RULES = {
  'is valid, and says nothing that Kubernetes would not read': async (manifests) => {
    const findings = [];
    for (const object of manifests.objects) {
      const { kind, apiVersion } = object;
      const { [kind]: model } = await import(`kubernetes-models/${apiVersion}/${kind}`);
      const read = new Set<string>();
      const title = `${kind} ${object.metadata.name}`;
      try {
        model.prototype.validate.call(watched(object, '', read));
        const unread = [...pathsOf(object)].filter((path) => !read.has(path));
        findings.push(...unread.map((path) => `${title}: nothing is called ${path}`));
      } catch (error) {
        findings.push(`${title}: ${(error as Error).message}`);
      }
    }
    return findings;
  },

  'names the version of each image': eachContainer(({ image }) => {
    const [, tag] = /:([^:/@]+)(@|$)/.exec(image) ?? [];
    return (!tag || tag === 'latest') && !image.includes('@sha256:') && `${image} is any version`;
  }),

  'asks for CPU and memory, and limits memory': eachContainer(({ resources }) =>
    ['requests.cpu', 'requests.memory', 'limits.memory'].find((path) => {
      const [group = '', name = ''] = path.split('.');
      return !resources?.[group]?.[name];
    }),
  ),

  'probes whatever keeps running': eachContainer(
    (container, { kind }) =>
      kind !== 'Job' &&
      ['startupProbe', 'livenessProbe', 'readinessProbe'].find((probe) => container[probe] === undefined),
  ),

  'has no privileges, and writes to volumes only': eachContainer(
    ({ securityContext = {} }, { pod, kind }) => {
      const { runAsNonRoot, runAsUser, seccompProfile } = { ...pod.securityContext, ...securityContext };
      if (!runAsNonRoot || !(runAsUser > 0)) return 'may run as root';
      if (seccompProfile?.type !== 'RuntimeDefault') return 'no seccomp profile';
      if (securityContext.allowPrivilegeEscalation !== false) return 'may gain privileges';
      if (!securityContext.capabilities?.drop?.includes('ALL')) return 'keeps capabilities';
      if (securityContext.readOnlyRootFilesystem !== true) return 'may write to its image';
      if (pod.hostNetwork || pod.hostPID || pod.volumes?.some(({ hostPath }: Loose) => hostPath))
        return 'reaches into its node';
      const unlikeSecrets = pod.volumes?.some(({ secret }: Loose) => !secret);
      return kind === 'Deployment' && unlikeSecrets && 'an app has a volume, and writes no files';
    },
  ),

  'gives nobody a way into the Kubernetes API': (manifests) => [
    ...manifests.workloads
      .filter(({ pod }) => pod.automountServiceAccountToken !== false)
      .map(({ title }) => `${title}: has a token of its service account`),
    ...manifests.workloads
      .filter(({ pod }) => !manifests.find('ServiceAccount', pod.serviceAccountName))
      .map(({ title, pod }) => `${title}: there is no service account ${pod.serviceAccountName}`),
    ...manifests
      .of('ServiceAccount')
      .filter(({ automountServiceAccountToken }) => automountServiceAccountToken !== false)
      .map(({ metadata }) => `ServiceAccount ${metadata.name}: mounts its token`),
    ...manifests
      .of('Role', 'ClusterRole', 'RoleBinding', 'ClusterRoleBinding')
      .map(({ kind, metadata }) => `${kind} ${metadata.name}: nothing here needs the API`),
  ],

  'holds no secret': (manifests) => {
    const secrets = manifests
      .of('Secret')
      .filter(({ data = {}, stringData = {} }) => Object.values({ ...data, ...stringData }).some(Boolean))
      .map(({ metadata }) => `Secret ${metadata.name} has values`);
    const literals = ours(manifests).flatMap(({ title, env }) =>
      [...env]
        .filter(
          ([name, value]) =>
            value && SECRET_NAMES.has(name) && !(name === 'NATS_URL' && !value.includes('@')),
        )
        .map(([name]) => `${title}: ${name} is written out`),
    );
    const files = manifests
      .of('ConfigMap')
      .filter(({ data = {} }) => /password"?\s*[:=]\s*[^\s$]/.test(Object.values(data).join('\n')))
      .map(({ metadata }) => `ConfigMap ${metadata.name} has a password`);
    return [...secrets, ...literals, ...files];
  },

  'sets every variable that an app demands, and none that it does not know': (manifests) =>
    ours(manifests).flatMap(({ title, env, container }) =>
      environmentFindings(title, container.args?.[0] ?? 'gateway', env),
    ),

  'refers to Secrets and ConfigMaps that are there': (manifests) =>
    manifests.workloads.flatMap(({ title, pod, containers }) => {
      const findings: string[] = [];
      const secrets = manifests.of('Secret');
      const keysOf = (kind: string, name: string): readonly string[] | undefined => {
        if (kind === 'Secret' && secrets.length === 0) return BROUGHT[name];
        const object = manifests.of(kind).find(({ metadata }) => metadata.name === name);
        return object && Object.keys(object.data ?? {});
      };
      const look = (kind: string, name: string, key?: string) => {
        const keys = keysOf(kind, name);
        if (!keys) findings.push(`${title}: there is no ${kind} ${name}`);
        else if (key !== undefined && !keys.includes(key))
          findings.push(`${title}: ${kind} ${name} has no ${key}`);
      };
      for (const { env = [], envFrom = [] } of containers) {
        for (const { valueFrom = {} } of env) {
          const { secretKeyRef, configMapKeyRef } = valueFrom;
          if (secretKeyRef) look('Secret', secretKeyRef.name, secretKeyRef.key);
          if (configMapKeyRef) look('ConfigMap', configMapKeyRef.name, configMapKeyRef.key);
        }
        for (const { configMapRef, secretRef } of envFrom) {
          if (configMapRef) look('ConfigMap', configMapRef.name);
          if (secretRef) look('Secret', secretRef.name);
        }
      }
      for (const { configMap, secret } of pod.volumes ?? []) {
        if (configMap) look('ConfigMap', configMap.name);
        if (secret) look('Secret', secret.secretName);
        for (const { key } of secret?.items ?? []) look('Secret', secret.secretName, key);
      }
      return findings;
    }),

  'selects the pods that it means': (manifests) => [
    ...manifests.workloads
      .filter(({ object, labels, kind }) => kind !== 'Job' && !selects(object.spec.selector, labels))
      .map(({ title }) => `${title}: does not select its own pods`),
    ...manifests
      .of('Service')
      .filter(({ spec }) => chosen(manifests, { matchLabels: spec.selector }).length !== 1)
      .map(({ metadata }) => `Service ${metadata.name}: does not select the pods of one workload`),
    ...manifests
      .of('PodDisruptionBudget')
      .filter(({ spec }) => chosen(manifests, spec.selector).length !== 1)
      .map(
        ({ metadata }) => `PodDisruptionBudget ${metadata.name}: does not select the pods of one workload`,
      ),
    ...manifests
      .of('NetworkPolicy')
      .flatMap(({ metadata, spec }) =>
        [spec.podSelector, ...peersOf(spec).map(({ podSelector }) => podSelector)]
          .filter((selector) => selector && chosen(manifests, selector).length === 0)
          .map(
            (selector) =>
              `NetworkPolicy ${metadata.name}: nothing has ${JSON.stringify(selector.matchLabels)}`,
          ),
      ),
    ...manifests.workloads.flatMap(({ title, pod, labels }) =>
      spreadOf(pod)
        .filter(({ labelSelector }) => !selects(labelSelector, labels))
        .map(() => `${title}: is spread by labels that it does not have`),
    ),
  ],

  'speaks of ports that are open': (manifests) => [
    ...manifests.of('Service').flatMap(({ metadata, spec }) => {
      const open = chosen(manifests, { matchLabels: spec.selector }).flatMap(portsOf);
      return spec.ports
        .filter(({ port, targetPort = port }: Loose) => !isOpen(open, targetPort))
        .map(({ targetPort }: Loose) => `Service ${metadata.name}: port ${targetPort} is not open`);
    }),
    ...manifests.of('NetworkPolicy').flatMap(({ metadata, spec }) => {
      const wrong = (pods: Workload[], ports: Loose[] = []) =>
        ports
          .filter(({ port }) => pods.some((pod) => portsOf(pod).length > 0 && !isOpen(portsOf(pod), port)))
          .map(({ port }) => `NetworkPolicy ${metadata.name}: port ${port} is not open`);
      return [
        ...(spec.ingress ?? []).flatMap(({ ports }: Loose) =>
          wrong(chosen(manifests, spec.podSelector), ports),
        ),
        ...(spec.egress ?? []).flatMap(({ to = [], ports }: Loose) =>
          to.flatMap(({ podSelector }: Loose) =>
            podSelector ? wrong(chosen(manifests, podSelector), ports) : [],
          ),
        ),
      ];
    }),
    ...manifests.workloads.flatMap(({ title, containers }) =>
      containers.flatMap((container) =>
        ['startupProbe', 'livenessProbe', 'readinessProbe']
          .map((probe) => container[probe]?.httpGet?.port)
          .filter((port) => port !== undefined && !isOpen(container.ports ?? [], port))
          .map((port) => `${title}: its probe's port ${port} is not open`),
      ),
    ),
    ...ours(manifests)
      .filter(
        ({ env, container }) => container.ports && !isOpen(container.ports, Number(env.get('PORT') ?? 8080)),
      )
      .map(({ title }) => `${title}: listens on another port than it opens`),
    ...manifests.of('Ingress').flatMap(({ spec }) =>
      spec.rules.flatMap(({ http }: Loose) =>
        http.paths
          .map(({ backend }: Loose) => backend.service)
          .filter(
            ({ name, port }: Loose) =>
              !manifests
                .find('Service', name)
                ?.spec.ports.some((one: Loose) => one.name === port.name || one.port === port.number),
          )
          .map(({ name }: Loose) => `Ingress: there is no such port of ${name}`),
      ),
    ),
    ...manifests
      .of('StatefulSet')
      .filter(({ spec }) => manifests.find('Service', spec.serviceName)?.spec.clusterIP !== 'None')
      .map(
        ({ metadata, spec }) => `StatefulSet ${metadata.name}: ${spec.serviceName} is not a headless Service`,
      ),
  ],

  'lets each connect to what it needs, and to nothing else': (manifests) => {
    const { workloads } = manifests;
    const nats = manifests.workload('nats');
    const postgres = workloads.filter(({ name }) => name === 'postgres');
    const expected: [to: Workload, port: number, from: string[], namespaces: string[]][] = [
      [nats, 4222, [...APPS], []],
      [nats, 6222, ['nats'], []],
      [nats, 8222, [], ['monitoring']],
      ...postgres.map((to): [Workload, number, string[], string[]] => [to, 5432, WITH_DATABASE, []]),
      [manifests.workload('gateway'), 8080, [], ['ingress-nginx', 'monitoring']],
      ...['auth', 'registry', 'notifier'].map((name): [Workload, number, string[], string[]] => [
        manifests.workload(name),
        8080,
        [],
        ['monitoring'],
      ]),
    ];
    return expected.flatMap(([to, port, from, namespaces]) => {
      // Whom it has to keep out, a pod keeps out by itself, whatever the other one is allowed.
      const judge = (name: string, peer: Peer, should: boolean) => {
        const may = should ? manifests.mayConnect(peer, to, port) : manifests.admits(to, peer, port);
        return may === should ? [] : [`${name} ${may ? 'reaches' : 'does not reach'} ${to.name}:${port}`];
      };
      return [
        ...workloads.flatMap((one) => judge(one.name, one, from.includes(one.name))),
        ...['ingress-nginx', 'monitoring', 'default'].flatMap((namespace) =>
          judge(namespace, { namespace }, namespaces.includes(namespace)),
        ),
      ];
    });
  },

  'lets those out who have something to ask there': (manifests) => {
    const inside = manifests.workloads.some(({ name }) => name === 'postgres');
    const provider = manifests.find('ConfigMap', 'identity').data?.JWKS_URL !== undefined;
    const expected: [port: number, from: string[]][] = [
      [5432, inside ? [] : WITH_DATABASE],
      [443, provider ? ['gateway', 'auth'] : []],
      [80, []],
    ];
    return expected.flatMap(([port, from]) =>
      manifests.workloads
        .filter((one) => manifests.mayLeave(one, port) !== from.includes(one.name))
        .map(({ name }) => `${name}: port ${port} outside`),
    );
  },

  'denies by default, both ways': (manifests) => {
    const denied = manifests
      .of('NetworkPolicy')
      .filter(({ spec }) => Object.keys(spec.podSelector).length === 0 && !spec.ingress && !spec.egress)
      .flatMap(({ spec }) => spec.policyTypes);
    return ['Ingress', 'Egress'].filter((way) => !denied.includes(way)).map((way) => `${way} is open`);
  },

  'waits for the whole shutdown of an app': (manifests) =>
    ours(manifests)
      .filter(({ kind }) => kind === 'Deployment')
      .flatMap(({ title, name, pod, container, env }) => {
        const [command, seconds] = container.lifecycle?.preStop?.exec?.command ?? [];
        if (command !== 'sleep') return [`${title}: stops before nothing new is routed to it`];
        const least = Number(seconds) + shutdownSeconds(name, env);
        return pod.terminationGracePeriodSeconds > least
          ? []
          : [`${title}: is killed after ${pod.terminationGracePeriodSeconds} s, and may take ${least} s`];
      }),

  'keeps a quiet connection and a waiting poll open at the edge': (manifests) => {
    const ingresses = manifests.of('Ingress');
    const gateway = ours(manifests).find(({ name }) => name === 'gateway');
    const { busTimeout, pingInterval, heartbeat } = GATEWAY_FIELDS;
    const fields = { busTimeout, pingInterval, heartbeat };
    const longest = Math.max(
      ...Object.values(readConfig(fields, { env: Object.fromEntries(gateway?.env ?? []) })),
    );
    return [
      ...(ingresses.length === 1 ? [] : ['there is not one Ingress']),
      ...ingresses.flatMap(({ metadata }) => {
        const setting = (name: string) => metadata.annotations?.[`nginx.ingress.kubernetes.io/${name}`] ?? '';
        return [
          ...(Number(setting('proxy-read-timeout')) * 1_000 > longest ? [] : ['Ingress: gives up too early']),
          ...(setting('proxy-buffering') === 'off' ? [] : ['Ingress: holds event streams back']),
          ...(Number.parseInt(setting('proxy-body-size'), 10) * 2 ** 20 > PAYLOAD_LIMIT.service
            ? []
            : ['Ingress: refuses events that the gateway takes']),
        ];
      }),
    ];
  },

  'survives the loss of a node': (manifests) => {
    const scalers = manifests.of('HorizontalPodAutoscaler');
    const orphans = scalers
      .filter(({ spec }) => !manifests.find(spec.scaleTargetRef.kind, spec.scaleTargetRef.name))
      .map(({ metadata }) => `HorizontalPodAutoscaler ${metadata.name}: scales what is not there`);
    const weak = manifests.workloads.flatMap(({ title, name, object, kind, pod, labels }) => {
      const scaler = scalers.find(({ spec }) => spec.scaleTargetRef.name === name);
      if (scaler && object.spec.replicas !== undefined)
        return [`${title}: its replicas would be reset at each roll-out`];
      const replicas = scaler?.spec.minReplicas ?? object.spec.replicas ?? 1;
      if (kind === 'Job' || replicas < 2) return [];
      const budgeted = manifests.of('PodDisruptionBudget').some(({ spec }) => selects(spec.selector, labels));
      return [
        ...(budgeted ? [] : [`${title}: may be evicted as a whole`]),
        ...(spreadOf(pod).length > 0 ? [] : [`${title}: may be on one node as a whole`]),
      ];
    });
    return [...orphans, ...weak];
  },

  'has TLS on both sides of NATS, or on none': (manifests) => {
    const nats = manifests.workload('nats');
    const config: string = manifests.find('ConfigMap', 'nats').data['nats.conf'] ?? '';
    const offered = /^tls \{/m.test(config);
    const routes = /^ {2}tls \{/m.test(config);
    const files = [...config.matchAll(/(?:cert|key|ca)_file: (\/\S+)/g)].map(([, path]) => path ?? '');
    const apps = ours(manifests).filter(({ env }) => env.has('NATS_URL'));
    return [
      ...(offered === routes ? [] : ['nats.conf: TLS for clients goes with TLS between the servers']),
      ...missingFiles(nats, nats.containers[0], files),
      ...apps.flatMap((app) => {
        const { title, env } = app;
        const demanded = env.get('NATS_URL')?.startsWith('tls://') ?? false;
        const paths = ['NATS_CA', 'NATS_CERT', 'NATS_KEY'].map((name) => env.get(name) ?? '').filter(Boolean);
        return [
          ...(demanded === offered ? [] : [`${title}: its NATS_URL ${demanded ? 'demands' : 'forgoes'} TLS`]),
          ...(demanded || paths.length === 0 ? [] : [`${title}: has certificates for no TLS`]),
          ...missingFiles(app, app.container, paths),
          ...(mounted(app, app.container).some((path) => path.endsWith('/tls.key') && !paths.includes(path))
            ? [`${title}: has a key that it does not use`]
            : []),
        ];
      }),
    ];
  },

  'has a NATS that holds what the apps ask of it': (manifests) => {
    const nats = manifests.workload('nats');
    const [container] = nats.containers;
    const { replicas } = nats.object.spec;
    const streams = ours(manifests)
      .filter(({ name }) => CONFIGURATION[name]?.some((row) => row.name === 'STREAM_REPLICAS'))
      .map(({ env, title }) => ({ title, copies: Number(env.get('STREAM_REPLICAS') ?? 1) }));
    const registry = ours(manifests).find(({ name }) => name === 'registry');
    const { streamMaxBytes: maxBytes } = readConfig(
      { streamMaxBytes: REGISTRY_FIELDS.streamMaxBytes },
      { env: Object.fromEntries(registry?.env ?? []) },
    );
    const reserved = streamConfigs({ maxBytes, maxAgeSeconds: 3600, replicas: 1 }).reduce(
      (sum, { max_bytes }) => sum + max_bytes,
      0,
    );
    const files: Record<string, string> = manifests.find('ConfigMap', 'nats').data;
    const config = files['nats.conf'] ?? '';
    const env = manifests.environment(container);
    const asked = [
      ...Object.values(files)
        .join('\n')
        .matchAll(/: \$([A-Z_]+)/g),
    ].map(([, name]) => name ?? '');
    const [, gigabytes] = /max_file_store: (\d+)GB/.exec(config) ?? [];
    const disk = bytesOf(nats.object.spec.volumeClaimTemplates[0].spec.resources.requests.storage);
    const store = gigabytes ? Number(gigabytes) * 2 ** 30 : disk;
    const soft = env.get('GOMEMLIMIT') ?? '';
    const routes = env.get('NATS_ROUTES') ?? '';
    const named = [...routes.matchAll(/nats-\d+\.([a-z-]+):6222/g)];
    const clustered = /^cluster \{/m.test(config);
    return [
      ...asked.filter((name) => !env.has(name)).map((name) => `${name} is missing`),
      ...streams
        .filter(({ copies }) => copies > replicas)
        .map(({ title, copies }) => `${title}: wants ${copies} copies of ${replicas} servers`),
      ...(clustered === replicas > 1 ? [] : ['nats.conf is not made for so many servers']),
      ...(!clustered ||
      (named.length === replicas && named.every(([, host]) => host === nats.object.spec.serviceName))
        ? []
        : ['NATS_ROUTES does not name every server']),
      ...(store >= reserved ? [] : [`nats.conf leaves ${store} bytes to streams that reserve ${reserved}`]),
      ...(disk > store || !gigabytes ? [] : ['the disk is smaller than the store']),
      ...(bytesOf(soft.replace(/B$/, '')) < bytesOf(container.resources.limits.memory)
        ? []
        : ['GOMEMLIMIT is not below the limit']),
    ];
  },
} as const satisfies Record<string, Rule>;

function chosen(manifests: Manifests, selector: Loose): Workload[] {
  return manifests.workloads.filter(({ labels }) => selects(selector, labels));
}

function portsOf({ containers }: Workload): Loose[] {
  return containers.flatMap(({ ports = [] }) => ports);
}

function isOpen(ports: Loose[], port: string | number): boolean {
  return ports.some(({ name, containerPort }) => name === port || containerPort === port);
}

function peersOf({ ingress = [], egress = [] }: Loose): Loose[] {
  return [...ingress.flatMap(({ from = [] }: Loose) => from), ...egress.flatMap(({ to = [] }: Loose) => to)];
}

/** The paths of the Secrets' files that a container sees. */
function mounted({ pod }: Pick<Workload, 'pod'>, { volumeMounts = [] }: Loose): string[] {
  return volumeMounts.flatMap(({ name, mountPath }: Loose) => {
    const { secret } = pod.volumes?.find((volume: Loose) => volume.name === name) ?? {};
    const names: string[] =
      secret?.items?.map(({ path }: Loose) => path) ?? BROUGHT[secret?.secretName ?? ''] ?? [];
    return names.map((file) => `${mountPath}/${file}`);
  });
}

function missingFiles(workload: Workload, container: Loose, paths: readonly string[]): string[] {
  const present = mounted(workload, container);
  return paths
    .filter((path) => !present.includes(path))
    .map((path) => `${workload.title}: ${path} is not mounted`);
}

function spreadOf({ topologySpreadConstraints = [] }: Loose): Loose[] {
  return topologySpreadConstraints;
}

/**
 * An object that notes which of its parts are read. The validators of kubernetes-models pass over what they do not know;
 * what they never looked at is no field of Kubernetes.
 */
function watched(value: Loose, path: string, read: Set<string>): Loose {
  if (value === null || typeof value !== 'object') return value;
  return new Proxy(value, {
    get(target, key) {
      if (typeof key === 'symbol' || !Object.hasOwn(target, key)) return Reflect.get(target, key);
      read.add(`${path}/${key}`);
      return watched(target[key], `${path}/${key}`, read);
    },
  });
}

function* pathsOf(value: Loose, path = ''): Generator<string> {
  if (value === null || typeof value !== 'object') return;
  for (const [key, part] of Object.entries(value)) {
    yield `${path}/${key}`;
    yield* pathsOf(part, `${path}/${key}`);
  }
}
