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

/** How long a {@link Peak} is told, in milliseconds. */
const PEAK_MS = 60_000;

/**
 * The highest of what was seen in this minute and the one before: told to whoever asks, however often and however many
 * ask. A comparison of plain numbers until then.
 */
export class Peak {
  readonly #now: () => number;
  #highest = 0;
  #before = 0;
  #since: number;

  /** @param now milliseconds, monotonic */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#since = now();
  }

  see(value: number): void {
    if (value > this.#highest) this.#highest = value;
  }

  get value(): number {
    const passed = this.#now() - this.#since;
    if (passed >= PEAK_MS) {
      // Of what was seen in several minutes without a question nobody knows when: it is told once more.
      this.#before = this.#highest;
      this.#highest = 0;
      this.#since += passed;
    }
    return Math.max(this.#highest, this.#before);
  }
}

/** Records one observation, in the unit that the metric's name ends in. */
export interface Distribution {
  observe(value: number): void;
}

const PREFIX = 'posthorn_';

/** A metric, for the table of docs/metrics.md. */
export interface MetricRow {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  /** The values that each label may have; none where only the process knows. */
  readonly labels: Readonly<Record<string, readonly string[]>>;
}

/** The same label with each of several values, each called by its value. */
export function labelled<K extends string>(label: string, values: readonly K[]): Record<K, Labels> {
  const sets = values.map((value): [K, Labels] => [value, { [label]: value }]);
  return Object.fromEntries(sets) as Record<K, Labels>;
}

/**
 * The metrics of one process. Names are given without the prefix `posthorn_`. Label sets are fixed and
 * resolved when a metric is made: prom-client hashes labels on every call of a labelled child, which a path
 * that runs a hundred thousand times a second does not afford.
 */
export class Metrics {
  readonly registry = new Registry();
  readonly #labels = new Map<string, MetricRow['labels']>();

  constructor(app: string) {
    this.registry.setDefaultLabels({ app });
    collectDefaultMetrics({ register: this.registry, prefix: PREFIX });
  }

  /**
   * A counter without labels; by convention the name ends in `_total`. With `read` its value is asked for at each
   * scrape.
   */
  counter(name: string, help: string, read?: () => number): Tally {
    return this.counters(name, help, { only: {} }, read && { only: read }).only;
  }

  /** A counter with a fixed set of children. A child with a reader is asked for its value at each scrape. */
  counters<K extends string>(
    name: string,
    help: string,
    sets: LabelSets<K>,
    readers: Partial<Record<K, () => number>> = {},
  ): Record<K, Tally> {
    const children = resolve(sets, () => new Tally());
    const labelNames = this.#note(name, sets);
    new Counter({
      name: PREFIX + name,
      help,
      labelNames,
      registers: [this.registry],
      collect() {
        this.reset();
        for (const key in sets) this.inc(sets[key], readers[key]?.() ?? children[key].value);
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
      labelNames: this.#note(name, sets),
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
      labelNames: this.#note(name, sets),
      buckets: [...buckets],
      registers: [this.registry],
    });
    return resolve(sets, (labels) => {
      histogram.zero(labels);
      return histogram.labels(labels);
    });
  }

  /** The highest that was seen in the last minute or two, as a gauge. */
  peak(name: string, help: string): Peak {
    const peak = new Peak();
    this.gauge(name, help, () => peak.value);
    return peak;
  }

  /** Every metric that there is, by name. */
  describe(): MetricRow[] {
    return this.registry
      .getMetricsAsArray()
      .map((metric) => {
        const { name, help, type, labelNames } = metric as unknown as Described;
        return { name, help, type, labels: this.#labels.get(name) ?? labelsWithoutValues(labelNames) };
      })
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #note(name: string, sets: LabelSets<string>): string[] {
    const pairs = Object.values(sets).flatMap((set) => Object.entries(set));
    const labels = [...new Set(pairs.map(([label]) => label))];
    const valuesOf = (label: string) => [
      ...new Set(pairs.flatMap(([of, value]) => (of === label ? value : []))),
    ];
    this.#labels.set(PREFIX + name, Object.fromEntries(labels.map((label) => [label, valuesOf(label)])));
    return labels;
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

/** What prom-client's metrics hold beside what their types say. */
interface Described {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly labelNames: readonly string[];
}

function labelsWithoutValues(names: readonly string[]): MetricRow['labels'] {
  return Object.fromEntries(names.map((name) => [name, []]));
}
