/**
 * A socket's life (docs/protocols/courier.md). Frames take effect in the order in which they came: a publish
 * waits for the subscriptions before it, so that a client hears what it publishes right after subscribing.
 */
import { randomUUID } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { type Bus, type BusEvent, checkEventId, publishTopic } from '@posthorn/bus';
import {
  asProblem,
  assertMayPublish,
  assertMaySubscribe,
  BROADCAST,
  CLOSE,
  filtersFor,
  formatPosition,
  isPattern,
  isPrivileged,
  matchesFilter,
  mayReceive,
  type Pattern,
  type Position,
  type Principal,
  ProblemError,
  parseTarget,
  parseTopic,
  principalId,
  type Target,
} from '@posthorn/contracts';
import type { Logger, Verifier } from '@posthorn/service';
import type { WebSocket } from 'ws';
import type { GatewayConfig } from '../config.js';
import type { Encoding } from '../hub/feed.js';
import { broadcastFrame, jsonFrame, messageFrame, PING_FRAME } from '../hub/frame.js';
import type { Hub, HubSubscription } from '../hub/hub.js';
import { Outbox } from '../hub/outbox.js';
import type { Wheel } from '../hub/wheel.js';
import type { GatewayMetrics } from '../metrics.js';
import { type ClientFrame, MalformedFrame, parseClientFrame } from './client-frame.js';
import { Bucket, Strikes } from './limits.js';

/** What sessions share. */
export interface SessionParts {
  readonly hub: Hub;
  readonly bus: Bus;
  readonly wheel: Wheel;
  readonly verifier: Verifier;
  /** Whether a token was revoked. */
  readonly isRevoked: (principal: Principal) => boolean;
  readonly config: GatewayConfig;
  readonly metrics: GatewayMetrics;
  readonly logger: Logger;
}

/** Publishes of one connection that may wait for their acknowledgement. */
const MAX_IN_FLIGHT = 256;
/** Frames that may wait behind a slow one before the socket is no longer read. */
const MAX_WAITING = 64;
/** Malformed frames that are borne in a minute. */
const MAX_STRIKES = 20;
/** How long a peer may take to answer a close, in milliseconds. */
const CLOSE_GRACE = 5_000;

const BROADCAST_TOPIC = parseTopic(BROADCAST);
const BROADCAST_ENCODING: Encoding = { key: '\u0000broadcast', encode: broadcastFrame };

interface Subscription {
  readonly target: Target;
  readonly hub: HubSubscription | undefined;
}

export class Session {
  readonly id = randomUUID();
  readonly #parts: SessionParts;
  readonly #socket: WebSocket;
  readonly #stream: Duplex;
  readonly #outbox: Outbox;
  readonly #publishes: Bucket;
  readonly #broadcasts: Bucket;
  readonly #strikes = new Strikes(MAX_STRIKES);
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #starting = new Set<Promise<void>>();
  readonly #waiting: ClientFrame[] = [];
  readonly #closed: () => void;
  #principal: Principal;
  #broadcast: HubSubscription | undefined;
  #inFlight = 0;
  #working = false;
  #ending = false;
  #silentPings = 0;
  #ping: { cancel(): void } | undefined;
  #expiry: { cancel(): void } | undefined;
  #resume: (() => void) | undefined;

  /**
   * @param stream the socket's own stream, for whole frames built by the hub
   * @param closed called once when the connection is gone
   */
  constructor(
    parts: SessionParts,
    socket: WebSocket,
    stream: Duplex,
    principal: Principal,
    closed: (session: Session) => void,
  ) {
    const { config, hub } = parts;
    this.#parts = parts;
    this.#socket = socket;
    this.#stream = stream;
    this.#principal = principal;
    this.#closed = () => closed(this);
    this.#outbox = new Outbox({
      turn: hub.turn,
      stream,
      limit: config.sendBuffer,
      overflow: () => this.end('slowConsumer'),
    });
    const now = Date.now();
    this.#publishes = new Bucket(config.publishRate, config.publishBurst, now);
    this.#broadcasts = new Bucket(config.broadcastRate, config.broadcastBurst, now);
  }

  get principal(): Principal {
    return this.#principal;
  }

  /** Takes over the socket. The welcome goes out once broadcasts are heard. */
  open(): void {
    const { metrics } = this.#parts;
    metrics.connections.inc();
    this.#socket.on('message', (data: Buffer, isBinary: boolean) => this.#receive(data, isBinary));
    this.#socket.on('pong', () => {
      this.#silentPings = 0;
    });
    this.#socket.on('error', (error: Error & { code?: string }) => {
      if (error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') metrics.closes.tooLarge.inc();
    });
    this.#socket.on('close', () => this.#gone());
    this.#schedulePing();
    this.#scheduleExpiry();
    this.#track(this.#welcome());
  }

  /** Ends the connection: what is queued is written first. Later calls change nothing. */
  end(reason: keyof typeof CLOSE): void {
    if (this.#ending) return;
    this.#ending = true;
    const { metrics, wheel } = this.#parts;
    metrics.closes[reason].inc();
    this.#outbox.close();
    this.#leave();
    const { code, reason: text } = CLOSE[reason];
    this.#socket.close(code, text);
    wheel.at(Date.now() + CLOSE_GRACE, () => this.#socket.terminate());
  }

  /** Tells the client to come back after a while, then ends the connection. */
  sendElsewhere(afterMs: number): void {
    this.#send({ action: 'reconnect', after_ms: afterMs });
    this.end('restart');
  }

  /** Says why, then ends the connection of a token that is no longer good. */
  revoke(): void {
    this.#fail(new ProblemError('unauthorized', 'The token was revoked'));
    this.end('tokenRevoked');
  }

  async #welcome(): Promise<void> {
    const { hub } = this.#parts;
    const { audience, expiresAt } = this.#principal;
    if (mayReceive(this.#principal, BROADCAST_TOPIC)) {
      const broadcast = hub.subscribe(audience, BROADCAST_TOPIC.path, this.#outbox, BROADCAST_ENCODING);
      this.#broadcast = broadcast;
      let position: Position;
      try {
        position = await broadcast.started;
      } catch (error) {
        this.#fail(error);
        return this.end('restart');
      }
      if (this.#ending) return;
      this.#sendWelcome(audience, expiresAt);
      broadcast.begin(position);
      return;
    }
    this.#sendWelcome(audience, expiresAt);
  }

  #sendWelcome(audience: string, expiresAt: number | undefined): void {
    const expires = expiresAt === undefined ? null : new Date(expiresAt * 1_000).toISOString();
    this.#send({ action: 'welcome', connection: this.id, audience, expires });
  }

  #receive(data: Buffer, isBinary: boolean): void {
    if (this.#ending) return;
    this.#silentPings = 0;
    this.#parts.metrics.framesIn.inc();
    let frame: ClientFrame;
    try {
      if (isBinary) throw new MalformedFrame('Frames are text', '');
      frame = parseClientFrame(data.toString('utf8'));
    } catch (error) {
      this.#fail(error, error instanceof MalformedFrame ? error.ref : undefined);
      if (this.#strikes.add(Date.now())) this.end('policy');
      return;
    }
    this.#waiting.push(frame);
    if (this.#waiting.length > MAX_WAITING) this.#socket.pause();
    if (!this.#working) void this.#work();
  }

  /** Takes waiting frames one after another. Never rejects. */
  async #work(): Promise<void> {
    this.#working = true;
    for (let frame = this.#waiting.shift(); frame && !this.#ending; frame = this.#waiting.shift()) {
      // Subscriptions start side by side; everything else takes effect after them.
      if (frame.action !== 'subscribe' && this.#starting.size > 0) await Promise.all(this.#starting);
      if (this.#inFlight >= MAX_IN_FLIGHT) await new Promise<void>((resolve) => (this.#resume = resolve));
      if (this.#ending) break;
      try {
        const slow = this.#take(frame);
        if (slow) await slow;
      } catch (error) {
        this.#fail(error, frame.ref);
      }
      if (this.#socket.isPaused && this.#waiting.length <= MAX_WAITING / 2) this.#socket.resume();
    }
    this.#working = false;
  }

  /** One frame. A promise is waited for before the next frame is looked at. */
  #take(frame: ClientFrame): Promise<void> | undefined {
    switch (frame.action) {
      case 'subscribe':
        this.#track(this.#subscribe(frame).catch((error) => this.#fail(error, frame.ref)));
        return undefined;
      case 'unsubscribe':
        this.#unsubscribe(frame);
        return undefined;
      case 'publish':
        this.#publish(frame.topic, frame);
        return undefined;
      case 'broadcast':
        this.#publish(BROADCAST, frame);
        return undefined;
      case 'auth':
        return this.#renew(frame.token);
      case 'ping':
        return this.#pong();
    }
  }

  async #subscribe(frame: ClientFrame & { action: 'subscribe' }): Promise<void> {
    const { hub, bus, config } = this.#parts;
    const { topic: name, ref } = frame;
    if (frame.since !== undefined) {
      throw new ProblemError('not_implemented', 'This gateway does not resume from a position');
    }
    const target = parseTarget(name, this.#principal);
    assertMaySubscribe(this.#principal, target);
    const identity = identityOf(target);
    const known = this.#subscriptions.get(identity);
    if (!known && this.#subscriptions.size >= config.subscriptionLimit) {
      throw new ProblemError(
        'subscription_limit',
        `A connection may have ${config.subscriptionLimit} subscriptions`,
      );
    }
    // Subscribed already, under whatever spelling: nothing to begin. Broadcasts come to every connection.
    if (known || identity === BROADCAST_TOPIC.path) {
      if (!known) this.#subscriptions.set(identity, { target, hub: undefined });
      return this.#sendSubscribed(name, await bus.horizon('global'), ref);
    }
    const { audience } = this.#principal;
    const subscription = isPattern(target)
      ? hub.watch(audience, filtersFor(this.#principal, target), this.#watcher(identity, target))
      : hub.subscribe(audience, target.path, this.#outbox, messageEncoding(name));
    this.#subscriptions.set(identity, { target, hub: subscription });
    try {
      const position = await subscription.started;
      if (this.#subscriptions.get(identity)?.hub !== subscription) return;
      this.#sendSubscribed(name, position, ref);
      subscription.begin(position);
    } catch (error) {
      if (this.#subscriptions.get(identity)?.hub === subscription) this.#subscriptions.delete(identity);
      subscription.close();
      throw error;
    }
  }

  #sendSubscribed(topic: string, position: Position, ref: string | undefined): void {
    this.#send({ action: 'subscribed', topic, position: formatPosition(position), ref });
  }

  #unsubscribe({ topic, ref }: ClientFrame & { action: 'unsubscribe' }): void {
    const identity = identityOf(parseTarget(topic, this.#principal));
    this.#subscriptions.get(identity)?.hub?.close();
    this.#subscriptions.delete(identity);
    this.#send({ action: 'unsubscribed', topic, ref });
  }

  /** Delivers what a pattern takes, once: not what another subscription of this connection already delivers. */
  #watcher(identity: string, pattern: Pattern): (event: BusEvent) => void {
    return (event) => {
      if (event.path === BROADCAST_TOPIC.path || this.#subscriptions.has(event.path)) return;
      if (!isPrivileged(this.#principal) && !mayReceive(this.#principal, event.topic)) return;
      for (const [other, { target }] of this.#subscriptions) {
        if (other === identity) break;
        if (isPattern(target) && target.filters.some((filter) => matchesFilter(filter, event.path))) return;
      }
      if (pattern.filters.some((filter) => matchesFilter(filter, event.path))) {
        this.#outbox.send(messageFrame(event, event.topic.name));
      }
    };
  }

  #publish(name: string, frame: ClientFrame & { action: 'publish' | 'broadcast' }): void {
    const { bus } = this.#parts;
    const { ref, id, message } = frame;
    const topic = publishTopic(name, message);
    const isBroadcast = topic.path === BROADCAST_TOPIC.path;
    assertMayPublish(this.#principal, topic, 'global');
    this.#assertRate(isBroadcast ? this.#broadcasts : this.#publishes);
    const eventId = checkEventId(id);
    this.#inFlight++;
    const { audience } = this.#principal;
    bus
      .publish({
        audience,
        topic,
        scope: 'global',
        message,
        principal: principalId(this.#principal),
        source: sourceOf(this.#principal),
        ...(eventId === undefined ? {} : { id: eventId }),
        ...(isBroadcast ? { kind: 'broadcast' as const } : {}),
      })
      .then(
        (receipt) => {
          if (ref === undefined) return;
          const position = formatPosition(receipt.position);
          this.#send({ action: 'published', topic: name, id: receipt.id, position, ref });
        },
        (error) => this.#fail(error, ref),
      )
      .finally(() => {
        this.#inFlight--;
        this.#resume?.();
        this.#resume = undefined;
      });
  }

  #assertRate(bucket: Bucket): void {
    const seconds = bucket.take(Date.now());
    if (seconds > 0) {
      throw new ProblemError('rate_limited', `Too many at once: again in ${seconds.toFixed(2)} s`, {
        retryAfter: seconds,
      });
    }
  }

  /** A new token for the same audience and user; what it no longer allows ends. */
  async #renew(token: string): Promise<void> {
    const { verifier, isRevoked } = this.#parts;
    const renewed = await verifier.verify(token);
    if (isRevoked(renewed)) throw new ProblemError('unauthorized', 'The token was revoked');
    if (renewed.audience !== this.#principal.audience || renewed.sub !== this.#principal.sub) {
      throw new ProblemError('forbidden', 'The token is for another audience or user than the connection');
    }
    this.#principal = renewed;
    this.#scheduleExpiry();
    this.#dropForbidden();
    this.#sendWelcome(renewed.audience, renewed.expiresAt);
  }

  #dropForbidden(): void {
    for (const [identity, { target, hub }] of this.#subscriptions) {
      try {
        assertMaySubscribe(this.#principal, target);
      } catch (error) {
        hub?.close();
        this.#subscriptions.delete(identity);
        this.#fail(error);
        this.#send({ action: 'unsubscribed', topic: target.name });
      }
    }
    if (!mayReceive(this.#principal, BROADCAST_TOPIC)) {
      this.#broadcast?.close();
      this.#broadcast = undefined;
    }
  }

  async #pong(): Promise<void> {
    const position = await this.#parts.bus.horizon('global');
    // Behind whatever this turn has already batched for this connection.
    setImmediate(() => this.#send({ action: 'pong', position: formatPosition(position) }));
  }

  #schedulePing(): void {
    const { wheel, config } = this.#parts;
    this.#ping = wheel.at(Date.now() + config.pingInterval, () => {
      if (this.#silentPings >= 2) return this.end('silent');
      this.#silentPings++;
      this.#outbox.send(PING_FRAME);
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
    this.#outbox.send(jsonFrame(message));
  }

  #fail(error: unknown, ref?: string): void {
    const problem = asProblem(error);
    const { code, detail, errors } = problem;
    this.#parts.metrics.errors[code].inc();
    if (code === 'internal') this.#parts.logger.error({ err: problem.cause ?? problem }, 'a frame failed');
    this.#send({ action: 'error', code, detail, errors, ref });
  }

  #track(starting: Promise<void>): void {
    const tracked = starting.finally(() => this.#starting.delete(tracked));
    this.#starting.add(tracked);
  }

  #leave(): void {
    for (const { hub } of this.#subscriptions.values()) hub?.close();
    this.#subscriptions.clear();
    this.#broadcast?.close();
    this.#broadcast = undefined;
    this.#ping?.cancel();
    this.#expiry?.cancel();
    this.#waiting.length = 0;
    this.#resume?.();
  }

  #gone(): void {
    this.#ending = true;
    this.#leave();
    this.#outbox.close();
    this.#parts.metrics.connections.dec();
    this.#stream.destroy();
    this.#closed();
  }
}

/** Who publishes, as `ce-source` names it. */
export function sourceOf(principal: Principal): string {
  return `/${principal.role}/${encodeURIComponent(principal.sub ?? '-')}`;
}

function identityOf(target: Target): string {
  return isPattern(target) ? target.filters.join(' ') : target.path;
}

function messageEncoding(name: string): Encoding {
  return { key: name, encode: (event) => messageFrame(event, name) };
}
