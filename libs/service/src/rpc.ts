import { headers, type Msg, type NatsConnection, type Subscription } from '@nats-io/transport-node';
import { type ArgumentsHost, Catch, type RpcExceptionFilter } from '@nestjs/common';
import {
  ClientNats,
  type CustomStrategy,
  type NatsContext,
  NatsRecord,
  type PacketId,
  type ReadPacket,
  ServerNats,
  type WritePacket,
} from '@nestjs/microservices';
import { asProblem, HEADER, isProblemCode, ProblemError, type Span } from '@posthorn/contracts';
import { firstValueFrom, Observable, TimeoutError, takeUntil, throwError, timeout } from 'rxjs';
import type { Logger } from './logger.js';
import type { NatsLink } from './nats.js';
import type { Tracing } from './tracing.js';

/**
 * Calls between apps: Nest's NATS transport on the connection that the process has, so that there is one
 * place that connects, reconnects and reports. Calls go to `ph-rpc.<app>.<call>`; an app's replicas share
 * them as one queue group named after the app.
 */

/** What an app needs to answer calls. */
export interface RpcServerOptions {
  readonly nats: NatsLink;
  /** The app's name: the queue group. */
  readonly app: string;
  /** Records the calls that come with a sampled trace, and goes on with it in what they cause. */
  readonly tracing?: Tracing | undefined;
}

/** For `NestFactory.createMicroservice(module, …)` or `app.connectMicroservice(…)`. */
export function rpcServerOptions(options: RpcServerOptions): CustomStrategy {
  return { strategy: new RpcServer(options) };
}

/**
 * Nest's NATS server on a connection that somebody else owns. Closing it takes no more calls, answers those
 * it has, and leaves the connection open; Nest's own closes the connection after a fixed pause.
 */
export class RpcServer extends ServerNats {
  readonly #nats: NatsLink;
  readonly #queue: string;
  readonly #tracing: Tracing | undefined;
  readonly #taken: Subscription[] = [];
  readonly #inFlight = new Set<Promise<unknown>>();

  constructor({ nats, app, tracing }: RpcServerOptions) {
    super({});
    this.#nats = nats;
    this.#queue = app;
    this.#tracing = tracing;
  }

  override async createNatsClient(): Promise<NatsConnection> {
    return this.#nats.connection;
  }

  // The link reports losses; Nest would log each a second time.
  override async handleStatusUpdates(): Promise<void> {}

  override bindEvents(connection: NatsConnection): void {
    for (const subject of this.messageHandlers.keys()) {
      const handle = this.getMessageHandler(subject) as (error: Error | null, message: Msg) => Promise<never>;
      const take = (error: Error | null, message: Msg) => {
        // JetStream delivers a stored message wherever a consumer wants it, under the subject that it was stored on:
        // what was published elsewhere is no call.
        if (error || message.subject === subject) void handle(error, message);
      };
      this.#taken.push(connection.subscribe(subject, { queue: this.#queue, callback: take }));
    }
  }

  override handleMessage(subject: string, message: Msg): Promise<unknown> {
    const handled = this.#tracing
      ? this.#traced(this.#tracing, subject, message)
      : super.handleMessage(subject, message);
    this.#inFlight.add(handled);
    const done = () => this.#inFlight.delete(handled);
    handled.then(done, done);
    return handled;
  }

  async #traced(tracing: Tracing, subject: string, message: Msg): Promise<unknown> {
    const span = tracing.start(subject, {
      kind: 'server',
      parent: traceparentOf(message),
      attributes: attributesOf(subject),
    });
    if (!span) return super.handleMessage(subject, message);
    try {
      return await tracing.serve({ span }, () => super.handleMessage(subject, message));
    } finally {
      span.end();
    }
  }

  override async close(): Promise<void> {
    const { connection } = this.#nats;
    const connected = () => this.#nats.isConnected() && !connection.isClosed();
    const taken = this.#taken.splice(0);
    await Promise.allSettled(taken.map((calls) => (connected() ? calls.drain() : calls.unsubscribe())));
    await Promise.allSettled(this.#inFlight);
    // Nest publishes an answer one tick after its handler is done.
    await new Promise(setImmediate);
    // Losing the connection here loses the last answers; their callers see it as lost, too.
    if (connected()) await connection.flush().catch(() => undefined);
  }
}

/** The trace that a call belongs to. nats.js throws at the sight of headers that it cannot read. */
function traceparentOf(message: Msg): string | undefined {
  try {
    return message.headers?.last(HEADER.traceparent);
  } catch {
    return undefined;
  }
}

/** By OpenTelemetry's conventions for calls. */
function attributesOf(subject: string) {
  const [, service, ...method] = subject.split('.');
  return { 'rpc.system': 'nats', 'rpc.service': service, 'rpc.method': method.join('.') };
}

/** An error as it travels in a reply. */
interface ProblemReply {
  readonly code: ProblemError['code'];
  readonly detail: string;
  readonly errors?: ProblemError['errors'];
  readonly retryAfter?: number;
}

/** What an {@link RpcProblemFilter} needs. */
export interface RpcProblemFilterOptions {
  readonly logger: Logger;
  /** Errors of the app's own dependencies that mean something to a caller, such as a database that is away. */
  readonly translate?: (error: unknown) => ProblemError | undefined;
}

/**
 * The one place where an app's errors become replies: errors of the catalogue travel as they are, anything
 * else is logged with its cause and travels as `internal`.
 */
@Catch()
export class RpcProblemFilter implements RpcExceptionFilter {
  constructor(private readonly options: RpcProblemFilterOptions) {}

  catch(error: unknown, host: ArgumentsHost): Observable<never> {
    const { logger, translate } = this.options;
    const problem = translate?.(error) ?? asProblem(error);
    if (problem.code === 'internal') {
      const subject = host.switchToRpc().getContext<NatsContext>().getSubject();
      logger.error({ err: problem.cause ?? problem, subject }, 'call failed');
    }
    const { code, detail, errors, retryAfter } = problem;
    return throwError((): ProblemReply => ({ code, detail, errors, retryAfter }));
  }
}

/** How one call is made. */
export interface CallOptions {
  /** How long to wait for the answer, in ms. Default: 2,000. */
  readonly timeoutMs?: number;
}

/** Calls other apps. */
export class RpcClient {
  readonly #nats: NatsLink;
  readonly #client: LinkedClient;
  readonly #tracing: Tracing | undefined;
  readonly #lost: Observable<never>;

  /** @param tracing whose current trace calls go on with */
  constructor(nats: NatsLink, tracing?: Tracing) {
    this.#nats = nats;
    this.#tracing = tracing;
    this.#client = new LinkedClient(nats);
    this.#lost = new Observable((observer) =>
      nats.watch((connected) => {
        if (!connected) observer.error(unavailable('The connection was lost before the answer came'));
      }),
    );
  }

  /**
   * Calls `subject` and waits for the answer of one replica. At most once: it is not tried again, and after
   * a time-out or a lost connection it may or may not have been done.
   *
   * @throws {ProblemError} `unavailable` when nobody listens, when the answer does not come in time, or when
   *   NATS is away (at once, nothing is buffered); else what the other app answered.
   */
  async call<TRequest, TResponse>(
    subject: string,
    request: TRequest,
    { timeoutMs = 2_000 }: CallOptions = {},
  ): Promise<TResponse> {
    if (!this.#nats.isConnected()) throw unavailable('NATS is away');
    const span = this.#tracing?.start(subject, {
      kind: 'client',
      parent: this.#tracing.current,
      attributes: attributesOf(subject),
    });
    const answer = this.#client
      .send<TResponse>(subject, span ? withTrace(request ?? {}, span) : (request ?? {}))
      .pipe(timeout({ first: timeoutMs }), takeUntil(this.#lost));
    try {
      const reply = await firstValueFrom(answer, { defaultValue: undefined as TResponse });
      span?.end();
      return reply;
    } catch (error) {
      const problem = fromReply(error, subject);
      span?.end(problem.code);
      throw problem;
    }
  }
}

function withTrace(request: unknown, { traceparent }: Span): NatsRecord {
  const carried = headers();
  carried.set(HEADER.traceparent, traceparent);
  return new NatsRecord(request, carried);
}

function fromReply(error: unknown, subject: string): ProblemError {
  if (error instanceof ProblemError) return error;
  // `ph-rpc.<app>.<call>`: which call of it was made is nothing that an outside caller has to know.
  if (error instanceof TimeoutError) {
    return unavailable(
      `The ${subject.split('.')[1]} did not answer in time; the call may have been done`,
      error,
    );
  }
  const { code, detail, errors, retryAfter } = (error ?? {}) as Partial<ProblemReply>;
  if (isProblemCode(code)) return new ProblemError(code, detail ?? '', { errors, retryAfter });
  return asProblem(error);
}

function unavailable(detail: string, cause?: unknown): ProblemError {
  return new ProblemError('unavailable', detail, { cause });
}

/** Nest's NATS client on a connection that somebody else owns. */
class LinkedClient extends ClientNats {
  readonly #nats: NatsLink;

  constructor(nats: NatsLink) {
    super(nats.inboxPrefix ? { inboxPrefix: nats.inboxPrefix } : {});
    this.#nats = nats;
  }

  override async createClient(): Promise<NatsConnection> {
    return this.#nats.connection;
  }

  // The link reports losses; Nest would log each a second time.
  override async handleStatusUpdates(): Promise<void> {}

  override createSubscriptionHandler(packet: ReadPacket & PacketId, callback: (packet: WritePacket) => void) {
    const handle = super.createSubscriptionHandler(packet, callback);
    return async (error: Error | null, message: object): Promise<void> => {
      if ((message as Msg).headers?.code === 503) {
        return callback({ err: unavailable(`Nobody answers ${packet.pattern}`), isDisposed: true });
      }
      // A reply that is not what Nest writes would otherwise be an unhandled rejection.
      await handle(error, message).catch((err: unknown) => callback({ err, isDisposed: true }));
    };
  }
}
