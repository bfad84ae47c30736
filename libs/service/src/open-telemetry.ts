/** Spans through OpenTelemetry's SDK, exported as OTLP over HTTP (JSON). Loaded only where a collector is configured. */
import { randomUUID } from 'node:crypto';
import {
  ROOT_CONTEXT,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOnSampler,
  BasicTracerProvider,
  BatchSpanProcessor,
  type SpanExporter,
} from '@opentelemetry/sdk-trace-base';
import type { Span, SpanOptions } from '@posthorn/contracts';
import { type Logger, onceUntil } from './logger.js';
import type { Recorder } from './tracing.js';

export interface RecorderOptions {
  readonly app: string;
  readonly instance: string;
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly logger: Logger;
}

/** Spans that wait for their export at most; what comes beyond is dropped. */
const QUEUE = 2_048;
const BATCH = 512;
/** How long spans are gathered before they are exported, and how long an export may take with its repeats, in ms. */
const DELAY = 1_000;
const EXPORT_TIMEOUT = 5_000;
/** How long the end of the process waits for the last export, in ms. */
const CLOSE_TIMEOUT = 2_000;

const KINDS: Readonly<Record<SpanOptions['kind'], SpanKind>> = {
  internal: SpanKind.INTERNAL,
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
};

export function openRecorder({ app, instance, endpoint, headers, logger }: RecorderOptions): Recorder {
  const exporter = new OTLPTraceExporter({
    url: `${endpoint.replace(/\/+$/, '')}/v1/traces`,
    headers: { ...headers },
    timeoutMillis: EXPORT_TIMEOUT,
  });
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({
      'service.namespace': 'posthorn',
      'service.name': `posthorn-${app}`,
      'service.instance.id': randomUUID(),
      'posthorn.instance': instance,
    }),
    // Whether something is recorded was decided before it comes here.
    sampler: new AlwaysOnSampler(),
    spanProcessors: [
      new BatchSpanProcessor(watched(exporter, logger), {
        maxQueueSize: QUEUE,
        maxExportBatchSize: BATCH,
        scheduledDelayMillis: DELAY,
        exportTimeoutMillis: EXPORT_TIMEOUT + 1_000,
      }),
    ],
  });
  const tracer = provider.getTracer('posthorn');
  return {
    begin: (name, { kind, parent, links = [], attributes, startTime }) => {
      const context =
        parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, contextOf(parent));
      const span = tracer.startSpan(
        name,
        {
          kind: KINDS[kind],
          links: links.map((link) => ({ context: contextOf(link) })),
          ...(attributes ? { attributes } : {}),
          ...(startTime === undefined ? {} : { startTime }),
        },
        context,
      );
      const { traceId, spanId } = span.spanContext();
      return {
        traceparent: `00-${traceId}-${spanId}-01`,
        set: (more) => void span.setAttributes(more),
        end: (failure) => {
          if (failure !== undefined) {
            span.setStatus({ code: SpanStatusCode.ERROR });
            span.setAttribute('error.type', failure);
          }
          span.end();
        },
      } satisfies Span;
    },
    close: async () => {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, CLOSE_TIMEOUT);
      });
      await Promise.race([provider.shutdown().catch(() => {}), late]);
      clearTimeout(timer);
    },
  };
}

/** The exporter, telling the log once that it fails, and once that it works again. */
function watched(exporter: SpanExporter, logger: Logger): SpanExporter {
  const failing = onceUntil(logger, {
    begins: 'traces cannot be exported: they are dropped',
    ends: 'traces are exported again',
  });
  return {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        if (result.code === 0) failing.end();
        else failing.begin({ reason: result.error?.message ?? 'no reason given' });
        // Dropped and said so: the processor has nothing to report.
        done({ code: 0 });
      }),
    shutdown: () => exporter.shutdown(),
  };
}

function contextOf(traceparent: string): SpanContext {
  const [, traceId = '', spanId = '', flags = '00'] = traceparent.split('-');
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & TraceFlags.SAMPLED, isRemote: true };
}
