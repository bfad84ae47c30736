/** k8s/: what each overlay makes of the base keeps to the rules, and each rule finds what breaks it. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from '@jest/globals';
import { Metrics } from '@posthorn/service';
import { parse } from 'yaml';
import { GatewayMetrics } from '../apps/gateway/src/metrics.js';
import { hasKubectl, manifestSources, overlays, render, renderedFile } from '../tools/manifests.mjs';
import { RULES } from './support/manifest-rules.js';
import { type Loose, Manifests } from './support/manifests.js';

const rendered = Object.fromEntries(
  overlays.map((overlay) => [overlay, readFileSync(renderedFile(overlay), 'utf8')]),
) as Record<(typeof overlays)[number], string>;

describe.each(overlays)('the overlay %s', (overlay) => {
  it('is rendered as it is now (else: npm run manifests)', () => {
    expect(rendered[overlay].split('\n')[0]).toContain(manifestSources());
    // A kubectl is not on every machine; where there is one, nobody can have edited the file instead.
    if (hasKubectl()) expect(Manifests.parse(rendered[overlay])).toEqual(Manifests.parse(render(overlay)));
  });

  it.each(Object.entries(RULES))('%s', async (_, rule) => {
    expect(await rule(Manifests.parse(rendered[overlay]))).toEqual([]);
  });
});

describe('the values for the official NATS chart', () => {
  it('make the servers that k8s/base makes', () => {
    const values = parse(readFileSync('k8s/nats-chart-values.yaml', 'utf8'));
    const manifests = Manifests.parse(rendered.production);
    const { object, containers } = manifests.workload('nats');
    const [nats] = containers;
    const { cluster, jetstream } = values.config;
    const config = manifests.find('ConfigMap', 'nats').data['nats.conf'];
    expect(cluster).toMatchObject({ enabled: true, replicas: object.spec.replicas, name: 'posthorn' });
    expect(nats.image).toBe(`nats:${values.container.image.tag}`);
    expect(values.container.merge.resources).toEqual(nats.resources);
    expect(values.container.merge.securityContext).toEqual(nats.securityContext);
    expect(jetstream.fileStore.pvc.size).toBe(
      object.spec.volumeClaimTemplates[0].spec.resources.requests.storage,
    );
    expect(config).toContain(`max_file_store: ${jetstream.fileStore.maxSize.replace('Gi', 'GB')}`);
    expect(config).toContain(`sync_interval: ${jetstream.merge.sync_interval}`);
    const { SERVER_NAME: _, ...env } = Object.fromEntries(
      nats.env.map(({ name, value, valueFrom }: Loose) => [name, value ?? { valueFrom }]),
    );
    expect(values.container.env).toEqual(env);
  });
});

describe('the values for prometheus-adapter', () => {
  it('make the metric that the scaler asks for, of what the gateway measures', async () => {
    const { rules } = parse(readFileSync('k8s/prometheus-adapter-values.yaml', 'utf8'));
    const [{ name, metricsQuery, seriesQuery }] = rules.custom;
    const { spec } = Manifests.parse(rendered.production).find('HorizontalPodAutoscaler', 'gateway');
    expect(name.as).toBe(spec.metrics[0].pods.metric.name);
    const metrics = new Metrics('gateway');
    new GatewayMetrics(metrics, () => 0, 0);
    const measured = metrics.registry.getMetricsAsArray().map((metric) => metric.name);
    const asked = `${seriesQuery} ${metricsQuery}`.match(/posthorn_\w+/g);
    expect(asked).toHaveLength(4);
    expect(measured).toEqual(expect.arrayContaining(asked ?? []));
  });
});

type Change = (manifests: Manifests) => unknown;

const container = (manifests: Manifests, name: string): Loose => manifests.workload(name).containers[0];
const setting = (manifests: Manifests, map: string): Loose => manifests.find('ConfigMap', map).data;
const policy = (manifests: Manifests, name: string): Loose => manifests.find('NetworkPolicy', name).spec;
const secretVolume = (manifests: Manifests, secret: Loose) =>
  manifests.workload('nats').pod.volumes.push({ name: 'x', secret });
const natsConf = (manifests: Manifests, from: string | RegExp, to: string) => {
  const data = setting(manifests, 'nats');
  data['nats.conf'] = data['nats.conf'].replace(from, to);
};
const remove = (manifests: Manifests, kind: string, name: string) => {
  (manifests.objects as Loose[]).splice(manifests.objects.indexOf(manifests.find(kind, name)), 1);
};

/** What must not pass where there is TLS; in production-nats-tls. */
const FORBIDDEN_WITH_TLS: Record<string, Change> = {
  'an app without': (m) =>
    Object.assign(setting(m, 'posthorn'), { NATS_URL: 'nats://nats:4222', NATS_CA: '' }),
  'routes without': (m) => natsConf(m, /^ {2}tls \{[^}]*\}\n/m, ''),
  'routes alone': (m) => natsConf(m, /^tls \{[^}]*\}\n/m, ''),
  'an authority that is not mounted': (m) =>
    Object.assign(setting(m, 'posthorn'), { NATS_CA: '/etc/nats-tls/authority.crt' }),
  'a server without its files': (m) => {
    const { pod } = m.workload('nats');
    pod.volumes = pod.volumes.filter(({ secret }: Loose) => !secret);
  },
  'an app with the key of the servers': (m) => delete m.workload('auth').pod.volumes[0].secret.items,
};

/** For each rule, what must not pass; in the rendered production overlay. */
const FORBIDDEN: Record<keyof typeof RULES, Record<string, Change>> = {
  'is valid, and says nothing that Kubernetes would not read': {
    'a misspelled field': (m) => Object.assign(container(m, 'auth'), { livenesProbe: {} }),
    'a value of another type': (m) => Object.assign(m.workload('auth').object.spec, { replicas: 'two' }),
    'a missing field': (m) => delete m.find('Ingress', 'gateway').spec.rules[0].http.paths[0].pathType,
  },
  'names the version of each image': {
    'no tag': (m) => Object.assign(container(m, 'auth'), { image: 'registry.example.org:5000/posthorn' }),
    latest: (m) => Object.assign(container(m, 'nats'), { image: 'nats:latest' }),
  },
  'asks for CPU and memory, and limits memory': {
    'no limit': (m) => delete container(m, 'registry').resources.limits,
    'no request': (m) => delete container(m, 'migrations').resources.requests.cpu,
  },
  'probes whatever keeps running': {
    'no readiness probe': (m) => delete container(m, 'gateway').readinessProbe,
    'no startup probe': (m) => delete container(m, 'nats').startupProbe,
  },
  'has no privileges, and writes to volumes only': {
    root: (m) => Object.assign(m.workload('auth').pod.securityContext, { runAsUser: 0 }),
    'any user': (m) => delete m.workload('auth').pod.securityContext.runAsNonRoot,
    'no seccomp profile': (m) => delete m.workload('nats').pod.securityContext.seccompProfile,
    'gaining privileges': (m) => delete container(m, 'auth').securityContext.allowPrivilegeEscalation,
    'a capability': (m) => delete container(m, 'auth').securityContext.capabilities,
    'a writable image': (m) => delete container(m, 'auth').securityContext.readOnlyRootFilesystem,
    'the files of the node': (m) =>
      m.workload('nats').pod.volumes.push({ name: 'x', hostPath: { path: '/' } }),
    'an app that needs a volume': (m) =>
      Object.assign(m.workload('auth').pod, { volumes: [{ name: 'tmp', emptyDir: {} }] }),
  },
  'gives nobody a way into the Kubernetes API': {
    'a token': (m) => delete m.workload('auth').pod.automountServiceAccountToken,
    'a token of the account': (m) => delete m.find('ServiceAccount', 'nats').automountServiceAccountToken,
    'an account that is not there': (m) => remove(m, 'ServiceAccount', 'gateway'),
    'a role': (m) => (m.objects as Loose[]).push({ kind: 'Role', metadata: { name: 'x' } }),
  },
  'holds no secret': {
    'a Secret': (m) =>
      (m.objects as Loose[]).push({
        kind: 'Secret',
        metadata: { name: 'x' },
        data: { JWT_SECRET: 'aHVzaA==' },
      }),
    'a literal': (m) => container(m, 'auth').env.push({ name: 'JWT_SECRET', value: 'hush' }),
    'a secret in a ConfigMap': (m) =>
      Object.assign(setting(m, 'posthorn'), { NATS_URL: 'nats://a:hush@nats:4222' }),
    'a password in a file': (m) => Object.assign(setting(m, 'nats'), { x: '{ user: a, password: hush }' }),
  },
  'sets every variable that an app demands, and none that it does not know': {
    'a missing one': (m) => container(m, 'notifier').env.splice(2),
    'an unknown one': (m) => container(m, 'gateway').env.push({ name: 'DATABASE_URL', value: '' }),
    'an unknown one in a ConfigMap': (m) => Object.assign(setting(m, 'posthorn'), { STREAM_REPLICAS: '3' }),
    'nothing to verify tokens with': (m) => {
      delete setting(m, 'identity').JWKS_URL;
      for (const app of ['gateway', 'auth'])
        container(m, app).env = container(m, app).env.filter(({ name }: Loose) => name !== 'JWT_SECRET');
    },
    'an app that the image does not have': (m) => Object.assign(container(m, 'auth'), { args: ['oauth'] }),
  },
  'refers to Secrets and ConfigMaps that are there': {
    'a missing ConfigMap': (m) => remove(m, 'ConfigMap', 'streams'),
    'a missing file': (m) => remove(m, 'ConfigMap', 'nats'),
    'a missing Secret': (m) => secretVolume(m, { secretName: 'gone' }),
    'a file that its Secret has not': (m) =>
      secretVolume(m, { secretName: 'posthorn', items: [{ key: 'ca.crt', path: 'ca.crt' }] }),
    'a missing key': (m) => delete setting(m, 'posthorn').LOG_LEVEL,
    'a key that the Secret has not': (m) =>
      container(m, 'auth').env.push({
        name: 'X',
        valueFrom: { secretKeyRef: { name: 'posthorn', key: 'X' } },
      }),
  },
  'selects the pods that it means': {
    'a Service of nobody': (m) =>
      Object.assign(m.find('Service', 'auth').spec, { selector: { 'app.kubernetes.io/name': 'oauth' } }),
    'a Service of everybody': (m) =>
      Object.assign(m.find('Service', 'auth').spec, {
        selector: { 'app.kubernetes.io/part-of': 'posthorn' },
      }),
    'a Deployment of others': (m) =>
      Object.assign(m.workload('auth').object.spec.selector, { matchLabels: { x: 'y' } }),
    'a budget of nobody': (m) =>
      Object.assign(m.find('PodDisruptionBudget', 'nats').spec.selector, { matchLabels: { x: 'y' } }),
    'a policy for nobody': (m) =>
      Object.assign(policy(m, 'metrics').podSelector, { matchLabels: { x: 'y' } }),
    'a policy from nobody': (m) =>
      Object.assign(policy(m, 'nats').ingress[0].from[0].podSelector, { matchLabels: { x: 'y' } }),
    'a spread of others': (m) =>
      Object.assign(m.workload('auth').pod.topologySpreadConstraints[0].labelSelector, {
        matchLabels: { x: 'y' },
      }),
  },
  'speaks of ports that are open': {
    'a Service': (m) => Object.assign(m.find('Service', 'auth').spec.ports[0], { targetPort: 'web' }),
    'a policy in': (m) => Object.assign(policy(m, 'nats').ingress[0].ports[0], { port: 4223 }),
    'a policy out': (m) => Object.assign(policy(m, 'apps-to-nats').egress[0].ports[0], { port: 4223 }),
    'a probe': (m) => Object.assign(container(m, 'nats').livenessProbe.httpGet, { port: 'health' }),
    'an app elsewhere': (m) => container(m, 'auth').env.push({ name: 'PORT', value: '9090' }),
    'an Ingress': (m) =>
      Object.assign(m.find('Ingress', 'gateway').spec.rules[0].http.paths[0].backend.service, {
        name: 'web',
      }),
    'a StatefulSet without names': (m) =>
      Object.assign(m.workload('nats').object.spec, { serviceName: 'nats' }),
  },
  'lets each connect to what it needs, and to nothing else': {
    'NATS for everybody': (m) => Object.assign(policy(m, 'nats').ingress[0], { from: [{ podSelector: {} }] }),
    'NATS from outside': (m) => policy(m, 'nats').ingress[0].from.push({ namespaceSelector: {} }),
    'NATS for nobody': (m) => remove(m, 'NetworkPolicy', 'apps-to-nats'),
    'an app from outside': (m) => Object.assign(policy(m, 'gateway-from-outside'), { podSelector: {} }),
    'a gateway for nobody': (m) => remove(m, 'NetworkPolicy', 'gateway-from-outside'),
    'apps among themselves': (m) => {
      policy(m, 'metrics').ingress.push({ from: [{ podSelector: {} }] });
      policy(m, 'apps-to-nats').egress.push({ to: [{ podSelector: {} }] });
    },
  },
  'lets those out who have something to ask there': {
    'no way to the database': (m) => remove(m, 'NetworkPolicy', 'to-postgres'),
    'a way for everybody': (m) => Object.assign(policy(m, 'to-postgres'), { podSelector: {} }),
    'no way to the keys': (m) => remove(m, 'NetworkPolicy', 'to-identity-provider'),
    'more than the keys': (m) => policy(m, 'to-identity-provider').egress[0].ports.push({ port: 80 }),
  },
  'denies by default, both ways': {
    'no such policy': (m) => remove(m, 'NetworkPolicy', 'default-deny'),
    'one way only': (m) => Object.assign(policy(m, 'default-deny'), { policyTypes: ['Ingress'] }),
  },
  'waits for the whole shutdown of an app': {
    'a longer delay': (m) => Object.assign(setting(m, 'gateway'), { DRAIN_DELAY: '10s' }),
    'a longer drain': (m) => Object.assign(setting(m, 'gateway'), { DRAIN_BUDGET: '30s' }),
    'less time': (m) => Object.assign(m.workload('auth').pod, { terminationGracePeriodSeconds: 30 }),
    'a longer wait before': (m) =>
      Object.assign(container(m, 'notifier').lifecycle.preStop.exec, { command: ['sleep', '15'] }),
    'no wait before': (m) => delete container(m, 'gateway').lifecycle,
  },
  'keeps a quiet connection and a waiting poll open at the edge': {
    'a longer poll': (m) => Object.assign(setting(m, 'gateway'), { BUS_TIMEOUT: '10m' }),
    'buffered event streams': (m) =>
      delete m.find('Ingress', 'gateway').metadata.annotations['nginx.ingress.kubernetes.io/proxy-buffering'],
    'small bodies': (m) =>
      Object.assign(m.find('Ingress', 'gateway').metadata.annotations, {
        'nginx.ingress.kubernetes.io/proxy-body-size': '1m',
      }),
    'no Ingress': (m) => remove(m, 'Ingress', 'gateway'),
  },
  'survives the loss of a node': {
    'no budget': (m) => remove(m, 'PodDisruptionBudget', 'nats'),
    'no spread': (m) => delete m.workload('gateway').pod.topologySpreadConstraints,
    'replicas beside a scaler': (m) => Object.assign(m.workload('gateway').object.spec, { replicas: 2 }),
    'a scaler of nothing': (m) =>
      Object.assign(m.find('HorizontalPodAutoscaler', 'gateway').spec.scaleTargetRef, { name: 'door' }),
  },
  'has TLS on both sides of NATS, or on none': {
    'a demand that nobody meets': (m) =>
      Object.assign(setting(m, 'posthorn'), { NATS_URL: 'tls://nats:4222' }),
    'an authority for nothing': (m) => Object.assign(setting(m, 'posthorn'), { NATS_CA: '/ca.crt' }),
    'an offer that nobody takes': (m) => natsConf(m, /$/, 'tls {\n}\n'),
  },
  'has a NATS that holds what the apps ask of it': {
    'a password that is not there': (m) => container(m, 'nats').env.splice(2, 1),
    'more copies than servers': (m) => Object.assign(setting(m, 'streams'), { STREAM_REPLICAS: '5' }),
    'a server that no route leads to': (m) => Object.assign(m.workload('nats').object.spec, { replicas: 5 }),
    'one server of three': (m) => Object.assign(m.workload('nats').object.spec, { replicas: 1 }),
    'streams beyond the store': (m) =>
      container(m, 'registry').env.push({ name: 'STREAM_MAX_BYTES', value: `${3e10}` }),
    'a store beyond the disk': (m) =>
      Object.assign(m.workload('nats').object.spec.volumeClaimTemplates[0].spec.resources.requests, {
        storage: '20Gi',
      }),
    'less memory': (m) => Object.assign(container(m, 'nats').resources.limits, { memory: '1Gi' }),
  },
};

const cases = Object.entries(FORBIDDEN).flatMap(([rule, changes]) =>
  Object.entries(changes).map(([what, change]) => [rule, what, change] as const),
);

describe('a rule', () => {
  it.each(cases)('"%s" finds: %s', async (rule, _, change) => {
    const manifests = Manifests.parse(rendered.production);
    change(manifests);
    expect(await RULES[rule as keyof typeof RULES](manifests)).not.toEqual([]);
  });

  it.each(Object.entries(FORBIDDEN_WITH_TLS))(
    '"has TLS on both sides of NATS" finds: %s',
    async (_, change) => {
      const manifests = Manifests.parse(rendered['production-nats-tls']);
      change(manifests);
      expect(await RULES['has TLS on both sides of NATS, or on none'](manifests)).not.toEqual([]);
    },
  );
});
