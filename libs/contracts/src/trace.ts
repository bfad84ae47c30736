/**
 * Traces as everybody here sees them: W3C trace contexts as texts, and the port through which spans are made. Whoever
 * exports spans implements {@link Tracer}; everybody else is given one, or undefined where nothing is traced.
 */

/** `traceparent` of W3C Trace Context, version 00 or what a later one has in common with it. */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** Whether a text is a W3C `traceparent`. */
export function isTraceparent(text: string | undefined): text is string {
  return text !== undefined && text.length === 55 && TRACEPARENT.test(text);
}

/** Whether a W3C `traceparent` says that its caller records the trace. False for what is none. */
export function isSampled(traceparent: string | undefined): traceparent is string {
  // The lowest bit of the last digit: looked at first, since it most often says no.
  return (
    traceparent !== undefined && '13579bdf'.includes(traceparent[54] ?? ' ') && isTraceparent(traceparent)
  );
}

/** The same trace context, saying that its caller does not record it. */
export function unsampled(traceparent: string): string {
  return `${traceparent.slice(0, 53)}00`;
}

/** The trace's id of a W3C `traceparent`, undefined for what is none. */
export function traceIdOf(traceparent: string | undefined): string | undefined {
  return isTraceparent(traceparent) ? traceparent.slice(3, 35) : undefined;
}

/** What stands in a span beside its name. Never a token, a payload or a user's id. */
export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>;

export interface SpanOptions {
  /** As OpenTelemetry has them. */
  readonly kind: 'internal' | 'server' | 'client' | 'producer' | 'consumer';
  /** The `traceparent` of what caused it. */
  readonly parent?: string | undefined;
  readonly attributes?: SpanAttributes;
}

/** Something that goes on and is recorded. */
export interface Span {
  /** W3C trace context, sampled: what this causes has it as its parent. */
  readonly traceparent: string;
  set(attributes: SpanAttributes): void;
  /**
   * Ends it, once.
   * @param failure a short code of why it failed, where it did
   */
  end(failure?: string): void;
}

export interface Tracer {
  /** Begins a span, or gives undefined where it is not to be recorded. MUST be cheap then, and MUST NOT throw. */
  start(name: string, options: SpanOptions): Span | undefined;
}
