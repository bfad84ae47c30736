/**
 * Traces of a process (docs/adr/0022-traces.md): who may begin one, and what goes on now. Where no collector is
 * configured there is no {@link Tracing}, and nothing of OpenTelemetry is loaded.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { isSampled, isTraceparent, type Span, type SpanOptions, type Tracer } from '@posthorn/contracts';
import type { ConfigRule } from './config.js';
import type { Logger } from './logger.js';

/** The part of the configuration that says where traces go. */
export interface TracingConfig {
  /** Base URL of an OTLP collector over HTTP; undefined: nothing is traced. */
  readonly otlpEndpoint?: string | undefined;
  /** Headers for it: `name=value`, comma-separated, percent-encoded. */
  readonly otlpHeaders?: string | undefined;
  /** The share, 0 to 1, of what comes in without a trace of its own that begins one. Default 0. */
  readonly traceRatio?: number | undefined;
}

/** Where spans are recorded: the one thing that knows OpenTelemetry. */
export interface Recorder {
  begin(name: string, options: RecordedSpan): Span;
  /** Exports what waits, within a bounded time, and ends. Never rejects. */
  close(): Promise<void>;
}

export interface RecordedSpan extends SpanOptions {
  /** `traceparent`s of other traces that have to do with it. */
  readonly links?: readonly string[];
  /** Milliseconds since 1970; now where absent. */
  readonly startTime?: number;
}

/** What comes in from outside. */
export interface Arrival extends Omit<RecordedSpan, 'parent' | 'links'> {
  /** The caller's `traceparent`, as it came. */
  readonly traceparent?: string | undefined;
  /** Whether the caller may decide what is traced: a service or an admin, and no end user. */
  readonly trusted: boolean;
}

/** One call that is being served: its span, once it is known who calls and that it is traced. */
export interface Serving {
  span?: Span | undefined;
}

/**
 * Spans that one process begins in a second: whoever can write to NATS can mark every event as sampled, and the rest
 * of the process has to go on.
 */
const SPANS_PER_SECOND = 1_000;

export interface TracingOptions {
  readonly recorder: Recorder;
  readonly ratio: number;
  /** Between 0 and 1. */
  readonly random?: () => number;
  /** Milliseconds. */
  readonly now?: () => number;
}

export class Tracing implements Tracer {
  readonly #recorder: Recorder;
  readonly #ratio: number;
  readonly #random: () => number;
  readonly #now: () => number;
  readonly #serving = new AsyncLocalStorage<Serving>();
  #second = 0;
  #begun = 0;

  constructor({ recorder, ratio, random = Math.random, now = Date.now }: TracingOptions) {
    this.#recorder = recorder;
    this.#ratio = ratio;
    this.#random = random;
    this.#now = now;
  }

  /** Goes on with a trace that is recorded: undefined for a parent that is not sampled, or none. */
  start(name: string, options: SpanOptions): Span | undefined {
    return isSampled(options.parent) && this.#hasRoom() ? this.#recorder.begin(name, options) : undefined;
  }

  /**
   * Begins the part of a trace that what comes in from outside causes. A trusted caller's sampled trace goes on, and its
   * unsampled one does not. Whatever else comes is traced by the ratio; an end user's own trace is linked, not joined.
   */
  arrive(name: string, { traceparent, trusted, ...span }: Arrival): Span | undefined {
    const given = isTraceparent(traceparent) ? traceparent : undefined;
    if (given && trusted) return this.start(name, { ...span, parent: given });
    if (this.#random() >= this.#ratio || !this.#hasRoom()) return undefined;
    return this.#recorder.begin(name, { ...span, ...(given ? { links: [given] } : {}) });
  }

  /** The `traceparent` of the call that is being served now, where it is traced. */
  get current(): string | undefined {
    return this.#serving.getStore()?.span?.traceparent;
  }

  /** Runs something as (part of) serving a call: all that it causes, also later, has it as {@link current}. */
  serve<T>(serving: Serving, run: () => T): T {
    return this.#serving.run(serving, run);
  }

  close(): Promise<void> {
    return this.#recorder.close();
  }

  #hasRoom(): boolean {
    const second = Math.floor(this.#now() / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#begun = 0;
    }
    return ++this.#begun <= SPANS_PER_SECOND;
  }
}

/** Loads OpenTelemetry and opens the export, where a collector is configured. */
export async function openTracing(
  config: TracingConfig,
  identity: { readonly app: string; readonly instance: string; readonly logger: Logger },
): Promise<Tracing | undefined> {
  if (config.otlpEndpoint === undefined) return undefined;
  const { openRecorder } = await import('./open-telemetry.js');
  const recorder = openRecorder({
    ...identity,
    endpoint: config.otlpEndpoint,
    headers: parseHeaders(config.otlpHeaders ?? '') ?? {},
  });
  return new Tracing({ recorder, ratio: config.traceRatio ?? 0 });
}

/** A rule: the collector's headers are what OpenTelemetry wants them to be, and go somewhere. */
export const tracingHeaders: ConfigRule<TracingConfig> = ({ otlpEndpoint, otlpHeaders }) => {
  if (otlpHeaders === undefined) return undefined;
  const got = `a value of ${Buffer.byteLength(otlpHeaders)} bytes (not shown)`;
  if (!parseHeaders(otlpHeaders)) {
    return {
      name: 'OTEL_EXPORTER_OTLP_HEADERS',
      got,
      wants: 'name=value pairs, separated by commas, percent-encoded',
    };
  }
  return otlpEndpoint === undefined
    ? { name: 'OTEL_EXPORTER_OTLP_ENDPOINT', got: 'nothing', wants: 'where OTEL_EXPORTER_OTLP_HEADERS go' }
    : undefined;
};

const HEADER = /^\s*([!#$%&'*+.^_`|~\w-]+)\s*=\s*([^\s,;]*)\s*$/;

function parseHeaders(text: string): Record<string, string> | undefined {
  const headers: Record<string, string> = {};
  for (const part of text.split(',').filter((one) => one.trim() !== '')) {
    const [, name, value] = HEADER.exec(part) ?? [];
    if (name === undefined || value === undefined) return undefined;
    try {
      headers[name] = decodeURIComponent(value);
    } catch {
      return undefined;
    }
    if (/[^\x20-\x7e]/.test(headers[name])) return undefined;
  }
  return headers;
}
