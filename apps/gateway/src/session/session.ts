/**
 * A connection's life (docs/protocols/courier.md), whatever carries it. Frames take effect in the order in which they came: a publish
 * waits for the subscriptions before it, so that a client hears what it publishes right after subscribing.
 */
import { randomUUID } from 'node:crypto';
import { type Bus, checkEventId, type Draft, publishTopic } from '@posthorn/bus/platform';
import {
  asProblem,
  assertMayPublish,
  BROADCAST,
  type CLOSE,
  formatPosition,
  type Principal,
  ProblemError,
} from '@posthorn/contracts';
import type { Logger, Tracing, Verifier } from '@posthorn/service';
import { authorOf } from '../author.js';
import type { GatewayConfig } from '../config.js';
import type { GatewayCore } from '../core.js';
import type { Hub } from '../hub/hub.js';
import { Outbox } from '../hub/outbox.js';
import type { Wheel } from '../hub/wheel.js';
import type { GatewayMetrics } from '../metrics.js';
import type { Carrier } from './carrier.js';
import { type ClientFrame, MalformedFrame } from './client-frame.js';
import type { Dialect } from './dialect.js';
import { Inbound } from './inbound.js';
import { BROADCAST_TOPIC, Interests } from './interests.js';
import { Bucket, Strikes, tooFast } from './limits.js';

/** What sessions share. */
export interface SessionParts {
  readonly hub: Hub;
  readonly bus: Bus;
  /** Where a client's publish goes in. */
  readonly publisher: Pick<Bus, 'publish'>;
  readonly wheel: Wheel;
  readonly verifier: Verifier;
  /** Whether a token was revoked. */
  readonly isRevoked: (principal: Principal) => boolean;
  readonly config: GatewayConfig;
  readonly metrics: GatewayMetrics;
  readonly logger: Logger;
  readonly tracing: Tracing | undefined;
}

/** @throws ProblemError `unavailable` while the gateway waits for its services */
export function sessionParts(core: GatewayCore): SessionParts {
  const { hub, bus, publisher, wheel, verifier, revocations, config, metrics, service } = core;
  const { logger, tracing } = service;
  const isRevoked = (principal: Principal) => revocations.isRevoked(principal);
  return { hub, bus, publisher, wheel, verifier, isRevoked, config, metrics, logger, tracing };
}

/** Publishes of one connection that may wait for their acknowledgement, and subscriptions for their beginning. */
const MAX_IN_FLIGHT = 1_024;
const MAX_STARTING = 128;
/** Frames of a connection per second beside its publishes: beyond it the socket is read more slowly. */
const PACE = 1_000;

export class Session {
  readonly id = randomUUID();
  readonly #parts: SessionParts;
  readonly #carrier: Carrier;
  readonly #dialect: Dialect;
  readonly #outbox: Outbox;
  readonly #inbound: Inbound<ClientFrame | ProblemError>;
  readonly #publishes: Bucket;
  readonly #broadcasts: Bucket;
  readonly #strikes: Strikes;
  readonly #interests: Interests;
  readonly #starting = new Set<Promise<void>>();
  readonly #closed: () => void;
  #principal: Principal;
  /** What the principal is to its drafts. */
  #author: ReturnType<typeof authorOf>;
  #inFlight = 0;
  #landed: (() => void) | undefined;
  #ended = false;
  #silentPings = 0;
  #ping: { cancel(): void } | undefined;
  #expiry: { cancel(): void } | undefined;

  /** @param closed called once when the connection is gone */
  constructor(
    parts: SessionParts,
    carrier: Carrier,
    principal: Principal,
    dialect: Dialect,
    closed: (session: Session) => void,
  ) {
    const { bus, config, hub, metrics, wheel } = parts;
    this.#parts = parts;
    this.#carrier = carrier;
    this.#principal = principal;
    this.#author = authorOf(principal);
    this.#dialect = dialect;
    this.#strikes = new Strikes(dialect.strikes);
    this.#closed = () => closed(this);
    this.#outbox = new Outbox({
      turn: hub.turn,
      stream: carrier.stream,
      limit: config.sendBuffer,
      sent: metrics.bytesOut,
      buffered: metrics.buffered,
      overflow: () => this.end('slowConsumer'),
    });
    this.#interests = new Interests({
      hub,
      bus,
      limit: config.subscriptionLimit,
      subscriptions: metrics.subscriptions,
      delivered: metrics.deliveries.session,
      outbox: this.#outbox,
      dialect,
      principal: () => this.#principal,
      send: (message) => this.#send(message),
      fail: (error, ref) => this.#fail(error, ref),
      broken: () => this.end('restart'),
    });
    const now = Date.now();
    this.#publishes = new Bucket(config.publishRate, config.publishBurst, now);
    this.#broadcasts = new Bucket(config.broadcastRate, config.broadcastBurst, now);
    const pace = new Bucket(PACE + config.publishRate, PACE + config.publishBurst, now);
    this.#inbound = new Inbound({ source: carrier, pace, wheel, take: (frame) => this.#take(frame) });
  }

  get principal(): Principal {
    return this.#principal;
  }

  /** Takes over the carrier. The welcome goes out once broadcasts are heard; resolves then. */
  open(): Promise<void> {
    this.#carrier.open({
      receive: (data, isBinary) => this.#receive(data, isBinary),
      heard: () => this.#heard(),
      broken: (reason) => this.#broken(reason),
      gone: () => this.#gone(),
    });
    this.#schedulePing();
    this.#scheduleExpiry();
    const welcome = this.#welcome().catch((error) => {
      if (this.#ended) return;
      this.#fail(error);
      this.end('restart');
    });
    this.#track(welcome);
    return welcome;
  }

  /** Takes a frame as if the peer had sent it. */
  ask(frame: ClientFrame): void {
    this.#inbound.push(frame);
  }

  /** Ends the connection: what is queued is written first. Later calls change nothing. */
  end(reason: keyof typeof CLOSE): void {
    if (this.#ended) return;
    this.#outbox.close();
    this.#leave(reason);
    this.#carrier.close(reason);
  }

  /** Answers what the client has sent, tells it to come back after a while, and ends the connection. */
  async sendElsewhere(afterMs: number): Promise<void> {
    await this.#inbound.finish();
    await this.#settled();
    while (this.#inFlight > 0 && !this.#ended) await this.#landing();
    this.#send({ action: 'reconnect', after_ms: afterMs });
    this.end('restart');
  }

  /** Says why, then ends the connection of a token that is no longer good. */
  revoke(): void {
    this.#fail(new ProblemError('unauthorized', 'The token was revoked'));
    this.end('tokenRevoked');
  }

  /** Ends the connection without waiting for the peer. */
  terminate(): void {
    this.#carrier.terminate();
  }

  /** Says what the token is good for, then lets broadcasts flow. */
  async #welcome(): Promise<void> {
    const { audience, expiresAt, room } = this.#principal;
    const begin = await this.#interests.followBroadcasts();
    if (this.#ended) return;
    const expires = expiresAt === undefined ? null : new Date(expiresAt * 1_000).toISOString();
    const welcome = { connection: this.id, audience, expires, ...(room && { room }) };
    this.#outbox.send(this.#dialect.welcome(welcome));
    begin?.();
  }

  #receive(data: Buffer, isBinary: boolean): void {
    if (this.#ended) return;
    this.#heard();
    const { metrics } = this.#parts;
    metrics.framesIn.inc();
    metrics.bytesIn.inc(data.length);
    const frame = this.#dialect.read(data, isBinary);
    if (frame) this.#inbound.push(frame);
  }

  /** Every sign of life counts against the pace, control frames too. */
  #heard(): void {
    this.#silentPings = 0;
    this.#inbound.count();
  }

  /** Takes one frame, once those before it that it depends on have taken effect. Never throws or rejects. */
  #take(frame: ClientFrame | ProblemError): Promise<void> | undefined {
    const before = this.#awaited(frame);
    return before ? before.then(() => this.#take(frame)) : this.#apply(frame);
  }

  #awaited(frame: ClientFrame | ProblemError): Promise<unknown> | undefined {
    if (this.#ended) return undefined;
    // Subscriptions start side by side; everything else takes effect after them.
    const subscribes = !(frame instanceof ProblemError) && frame.action === 'subscribe';
    if (this.#starting.size >= (subscribes ? MAX_STARTING : 1)) return this.#settled();
    return this.#inFlight >= MAX_IN_FLIGHT ? this.#landing() : undefined;
  }

  #apply(frame: ClientFrame | ProblemError): Promise<void> | undefined {
    if (this.#ended) return undefined;
    if (frame instanceof ProblemError) return this.#strike(frame);
    const fail = (error: unknown) => this.#fail(error, frame.ref);
    try {
      return this.#act(frame)?.catch(fail);
    } catch (error) {
      fail(error);
      return undefined;
    }
  }

  #strike(malformed: ProblemError): undefined {
    this.#fail(malformed, malformed instanceof MalformedFrame ? malformed.ref : undefined);
    if (this.#strikes.add(Date.now())) this.end('policy');
  }

  #act(frame: ClientFrame): Promise<void> | undefined {
    switch (frame.action) {
      case 'subscribe':
        this.#track(this.#interests.subscribe(frame).catch((error) => this.#fail(error, frame.ref)));
        return undefined;
      case 'unsubscribe':
        this.#interests.unsubscribe(frame);
        return undefined;
      case 'publish':
        return this.#publish(frame.topic, frame);
      case 'broadcast':
        return this.#publish(BROADCAST, frame);
      case 'auth':
        return this.#renew(frame.token);
      case 'ping':
        return this.#pong();
    }
  }

  #publish(
    name: string,
    { id, message, ref }: ClientFrame & { action: 'publish' | 'broadcast' },
  ): Promise<void> | undefined {
    const topic = publishTopic(name, message);
    const isBroadcast = topic.path === BROADCAST_TOPIC.path;
    assertMayPublish(this.#principal, topic, 'global');
    const due = this.#admit(isBroadcast ? this.#broadcasts : this.#publishes);
    const eventId = checkEventId(id);
    const draft: Draft = {
      ...this.#author,
      topic,
      scope: 'global',
      message,
      ...(eventId === undefined ? {} : { id: eventId }),
      ...(isBroadcast ? { kind: 'broadcast' as const } : {}),
    };
    if (due) return due.then(() => this.#store(draft, name, ref));
    this.#store(draft, name, ref);
    return undefined;
  }

  #store(draft: Draft, name: string, ref: string | undefined): void {
    if (this.#ended) return;
    this.#inFlight++;
    const { publisher, tracing } = this.#parts;
    const span = tracing?.arrive('publish frame', {
      kind: 'server',
      trusted: false,
      attributes: { 'posthorn.audience': draft.audience, 'posthorn.connection': this.id },
    });
    publisher
      .publish(span ? { ...draft, traceparent: span.traceparent } : draft)
      .then(
        (receipt) => {
          span?.end();
          if (ref === undefined) return;
          const position = receipt.position && formatPosition(receipt.position);
          this.#send({ action: 'published', topic: name, id: receipt.id, position, ref });
        },
        (error) => {
          span?.end(asProblem(error).code);
          this.#fail(error, ref);
        },
      )
      .finally(() => {
        this.#inFlight--;
        this.#landed?.();
      });
  }

  /** Counts a publish. One over the rate is refused, or due later where its client could not be told. */
  #admit(bucket: Bucket): Promise<void> | undefined {
    const now = Date.now();
    const { refusesExcess } = this.#dialect;
    const seconds = refusesExcess ? bucket.take(now) : bucket.overdraw(now);
    if (seconds === 0) return undefined;
    if (!refusesExcess) {
      return new Promise((resolve) => this.#parts.wheel.at(now + seconds * 1_000, resolve));
    }
    throw tooFast(seconds);
  }

  /** A new token for the same audience and user; what it no longer allows ends. */
  async #renew(token: string): Promise<void> {
    const { verifier, isRevoked } = this.#parts;
    const renewed = await verifier.verify(token);
    if (this.#ended) return;
    if (isRevoked(renewed)) throw new ProblemError('unauthorized', 'The token was revoked');
    if (renewed.audience !== this.#principal.audience || renewed.sub !== this.#principal.sub) {
      throw new ProblemError('forbidden', 'The token is for another audience or user than the connection');
    }
    this.#principal = renewed;
    this.#author = authorOf(renewed);
    this.#scheduleExpiry();
    this.#interests.dropForbidden();
    await this.#welcome();
  }

  #pong(): Promise<void> {
    return this.#interests.place((position) => this.#send({ action: 'pong', position }));
  }

  #schedulePing(): void {
    const { wheel, config } = this.#parts;
    const { ping } = this.#carrier;
    if (!ping) return;
    this.#ping = wheel.at(Date.now() + config.pingInterval, () => {
      if (this.#silentPings >= 2) return this.end('silent');
      if (!this.#inbound.paused) this.#silentPings++;
      this.#outbox.send(ping);
      this.#schedulePing();
    });
  }

  #scheduleExpiry(): void {
    this.#expiry?.cancel();
    const { expiresAt } = this.#principal;
    if (expiresAt === undefined) return;
    this.#expiry = this.#parts.wheel.at(expiresAt * 1_000, () => {
      this.#fail(new ProblemError('token_expired', 'The token has expired'));
      this.end('tokenExpired');
    });
  }

  #send(message: object): void {
    const frame = this.#dialect.answer(message);
    if (frame) this.#outbox.send(frame);
  }

  #fail(error: unknown, ref?: string): void {
    if (this.#ended) return;
    const problem = asProblem(error);
    const { code, detail, errors } = problem;
    this.#parts.metrics.errors[code].inc();
    if (code === 'internal') {
      this.#parts.logger.error({ err: problem.cause ?? problem, connection: this.id }, 'a frame failed');
    }
    const frame = this.#dialect.answer({ action: 'error', code, detail, errors, ref });
    if (frame) this.#outbox.send(frame);
    // A client that is not told would wait for ever for what came to nothing: it has to come again.
    else if (code === 'unavailable') this.end('restart');
  }

  #track(starting: Promise<void>): void {
    const tracked = starting.finally(() => this.#starting.delete(tracked));
    this.#starting.add(tracked);
  }

  /** Resolves once every subscription that is starting has begun or failed. */
  #settled(): Promise<unknown> {
    return Promise.all(this.#starting);
  }

  /** Resolves when the next publish is answered, or the connection has ended. */
  #landing(): Promise<void> {
    return new Promise((resolve) => {
      this.#landed = resolve;
    });
  }

  #broken(reason: keyof typeof CLOSE): void {
    if (this.#ended) return;
    this.#outbox.drop();
    this.#leave(reason);
  }

  /** From here on nothing is taken and nothing but what is queued goes out. */
  #leave(reason?: keyof typeof CLOSE): void {
    this.#ended = true;
    if (reason) this.#parts.metrics.closes[reason].inc();
    this.#interests.close();
    this.#ping?.cancel();
    this.#expiry?.cancel();
    this.#inbound.end();
    this.#landed?.();
  }

  #gone(): void {
    this.#outbox.drop();
    if (!this.#ended) this.#leave();
    this.#closed();
  }
}
