import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** The labels of one child, for example `{ transport: 'ws' }`. */
export type Labels = Readonly<Record<string, string>>;

/** Children by the name that the code calls them, each with its labels. */
export type LabelSets<K extends string> = Readonly<Record<K, Labels>>;

/** Counts up. A plain number until it is scraped: cheap enough for the hottest path. */
export class Tally {
  value = 0;

  inc(by = 1): void {
    this.value += by;
  }
}

/** Goes up and down. A plain number until it is scraped. */
export class Level {
  value = 0;

  set(value: number): void {
    this.value = value;
  }

  inc(by = 1): void {
    this.value += by;
  }

  dec(by = 1): void {
    this.value -= by;
  }
}

/** Records one observation, in the unit that the metric's name ends in. */
export interface Distribution {
  observe(value: number): void;
}

const PREFIX = 'posthorn_';

/**
 * The metrics of one process. Names are given without the prefix `posthorn_`. Label sets are fixed and
 * resolved when a metric is made: prom-client hashes labels on every call of a labelled child, which a path
 * that runs a hundred thousand times a second does not afford.
 */
export class Metrics {
  readonly registry = new Registry();

  constructor(app: string) {
    this.registry.setDefaultLabels({ app });
    collectDefaultMetrics({ register: this.registry, prefix: PREFIX });
  }

  /** A counter without labels; by convention the name ends in `_total`. */
  counter(name: string, help: string): Tally {
    return this.counters(name, help, { only: {} }).only;
  }

  /** A counter with a fixed set of children. */
  counters<K extends string>(name: string, help: string, sets: LabelSets<K>): Record<K, Tally> {
    const children = resolve(sets, () => new Tally());
    const labelNames = labelNamesOf(sets);
    new Counter({
      name: PREFIX + name,
      help,
      labelNames,
      registers: [this.registry],
      collect() {
        this.reset();
        for (const key in sets) this.inc(sets[key], children[key].value);
      },
    });
    return children;
  }

  /** A gauge without labels. With `read` its value is asked for at each scrape. */
  gauge(name: string, help: string, read?: () => number): Level {
    return this.gauges(name, help, { only: {} }, read && { only: read }).only;
  }

  /** A gauge with a fixed set of children. A child with a reader is asked for its value at each scrape. */
  gauges<K extends string>(
    name: string,
    help: string,
    sets: LabelSets<K>,
    readers: Partial<Record<K, () => number>> = {},
  ): Record<K, Level> {
    const children = resolve(sets, () => new Level());
    new Gauge({
      name: PREFIX + name,
      help,
      labelNames: labelNamesOf(sets),
      registers: [this.registry],
      collect() {
        for (const key in sets) this.set(sets[key], readers[key]?.() ?? children[key].value);
      },
    });
    return children;
  }

  /** A histogram without labels. */
  histogram(name: string, help: string, buckets: readonly number[]): Distribution {
    return this.histograms(name, help, buckets, { only: {} }).only;
  }

  /** A histogram with a fixed set of children. */
  histograms<K extends string>(
    name: string,
    help: string,
    buckets: readonly number[],
    sets: LabelSets<K>,
  ): Record<K, Distribution> {
    const histogram = new Histogram({
      name: PREFIX + name,
      help,
      labelNames: labelNamesOf(sets),
      buckets: [...buckets],
      registers: [this.registry],
    });
    return resolve(sets, (labels) => {
      histogram.zero(labels);
      return histogram.labels(labels);
    });
  }

  /** The text exposition of everything, and its content type. */
  async exposition(): Promise<{ contentType: string; body: string }> {
    return { contentType: this.registry.contentType, body: await this.registry.metrics() };
  }
}

function resolve<K extends string, C>(sets: LabelSets<K>, make: (labels: Labels) => C): Record<K, C> {
  const entries = Object.entries<Labels>(sets).map(([key, labels]) => [key, make(labels)]);
  return Object.fromEntries(entries) as Record<K, C>;
}

function labelNamesOf(sets: LabelSets<string>): string[] {
  return [...new Set(Object.values(sets).flatMap((labels) => Object.keys(labels)))];
}
