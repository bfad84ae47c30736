/** The objects of an overlay, and what they say of each other. Typed loosely: whether they are valid is for a test to find. */
import { parseAllDocuments } from 'yaml';

/** An object of Kubernetes, as parsed. */
// biome-ignore lint/suspicious/noExplicitAny: what is in it is not known before it has been looked at
export type Loose = any;

export interface Workload {
  /** For messages: `Deployment gateway`. */
  readonly title: string;
  readonly name: string;
  readonly kind: string;
  readonly object: Loose;
  readonly labels: Readonly<Record<string, string>>;
  readonly pod: Loose;
  readonly containers: readonly Loose[];
}

/** The other end of a connection: a pod of ours, pods of another namespace, or an address that is no pod's. */
export type Peer = Pick<Workload, 'labels'> | { readonly namespace: string } | 'outside';

const WORKLOADS = ['Deployment', 'StatefulSet', 'Job'];

export class Manifests {
  constructor(readonly objects: readonly Loose[]) {}

  static parse(yaml: string): Manifests {
    return new Manifests(parseAllDocuments(yaml).map((document) => document.toJS()));
  }

  of(...kinds: string[]): Loose[] {
    return this.objects.filter(({ kind }) => kinds.includes(kind));
  }

  /** The object of this kind and name; a generated name counts without its hash. */
  find(kind: string, name: string): Loose {
    return this.of(kind).find(
      ({ metadata }) => metadata.name === name || metadata.name.replace(/-[a-z0-9]{10}$/, '') === name,
    );
  }

  get workloads(): Workload[] {
    return this.of(...WORKLOADS).map((object) => {
      const { metadata, spec } = object.spec.template;
      const { name } = object.metadata;
      return {
        title: `${object.kind} ${name}`,
        name,
        kind: object.kind,
        object,
        labels: metadata.labels,
        pod: spec,
        containers: [...(spec.initContainers ?? []), ...spec.containers],
      };
    });
  }

  workload(name: string): Workload {
    const found = this.workloads.find((one) => one.name === name);
    if (!found) throw new Error(`no workload is named ${name}`);
    return found;
  }

  /** The environment of a container: literal values, and `undefined` for what a Secret or a field gives. */
  environment(container: Loose): Map<string, string | undefined> {
    const result = new Map<string, string | undefined>();
    for (const { configMapRef, secretRef } of container.envFrom ?? []) {
      const source = configMapRef
        ? this.find('ConfigMap', configMapRef.name)
        : this.find('Secret', secretRef.name);
      for (const [name, value] of Object.entries<string>(source?.data ?? {}))
        result.set(name, configMapRef ? value : undefined);
    }
    for (const { name, value, valueFrom } of container.env ?? []) {
      const { configMapKeyRef } = valueFrom ?? {};
      const mapped =
        configMapKeyRef && this.find('ConfigMap', configMapKeyRef.name)?.data?.[configMapKeyRef.key];
      result.set(name, value ?? mapped);
    }
    return result;
  }

  /** Whether the policies let one peer open a connection to a pod. */
  mayConnect(from: Peer, to: Workload, port: number): boolean {
    const leaves = from === 'outside' || 'namespace' in from || this.#allowed('Egress', from, to, port);
    return leaves && this.admits(to, from, port);
  }

  /** Whether a pod's own policies would let a peer in, if its policies let it out. */
  admits(to: Workload, from: Peer, port: number): boolean {
    return this.#allowed('Ingress', to, from, port);
  }

  /** Whether the policies let a pod open a connection to addresses outside the cluster. */
  mayLeave(from: Workload, port: number): boolean {
    return this.#allowed('Egress', from, 'outside', port);
  }

  #allowed(
    direction: 'Ingress' | 'Egress',
    subject: Pick<Workload, 'labels'>,
    peer: Peer,
    port: number,
  ): boolean {
    const [rules, peers] = direction === 'Ingress' ? ['ingress', 'from'] : ['egress', 'to'];
    const policies = this.of('NetworkPolicy').filter(
      ({ spec }) => spec.policyTypes.includes(direction) && selects(spec.podSelector, subject.labels),
    );
    if (policies.length === 0) return true;
    return policies
      .flatMap(({ spec }) => spec[rules] ?? [])
      .some(
        (rule: Loose) =>
          (!rule.ports || rule.ports.some((one: Loose) => one.port === port)) &&
          (!rule[peers] || rule[peers].some((one: Loose) => isPeer(one, peer))),
      );
  }
}

/** Whether a selector takes these labels. An empty one takes all; none takes nothing. */
export function selects(selector: Loose, labels: Readonly<Record<string, string>>): boolean {
  return (
    selector !== undefined &&
    Object.entries(selector.matchLabels ?? {}).every(([name, value]) => labels[name] === value)
  );
}

function isPeer({ podSelector, namespaceSelector, ipBlock }: Loose, peer: Peer): boolean {
  if (peer === 'outside') return ipBlock !== undefined;
  if ('namespace' in peer)
    return selects(namespaceSelector, { 'kubernetes.io/metadata.name': peer.namespace });
  return !namespaceSelector && selects(podSelector, peer.labels);
}

const UNITS: Readonly<Record<string, number>> = { '': 1, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 };

/** `2Gi` in bytes. */
export function bytesOf(quantity: string): number {
  const [, number, unit = ''] = /^(\d+)(|Ki|Mi|Gi)$/.exec(quantity) ?? [];
  const size = UNITS[unit];
  if (!number || !size) throw new Error(`not a quantity of bytes: ${quantity}`);
  return Number(number) * size;
}
