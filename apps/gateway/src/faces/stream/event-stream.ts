/** One event stream's life: an answer that does not end by itself. */
import type { CLOSE, Cursor, Principal, ProblemError } from '@posthorn/contracts';
import type { GatewayCore } from '../../core.js';
import type { FeedEvent } from '../../hub/feed.js';
import type { Follow, FollowStart, Reader } from '../../hub/follow.js';
import { Outbox } from '../../hub/outbox.js';
import { BLOCK_END, eventLine, idLine, retryLine, textBlock } from './blocks.js';
import type { OpenAnswer } from './open-answer.js';
import { type Interest, receives } from './topics.js';
import type { Voice } from './voice.js';

/** How soon clients come again when their gateway is gone, in milliseconds: each after a while of its own. */
const RETRY = { least: 1_000, most: 3_000 };

/** Why the server ends a stream. */
export type End = Extract<keyof typeof CLOSE, 'restart' | 'tokenExpired' | 'tokenRevoked' | 'slowConsumer'>;

export interface EventStreamOptions {
  readonly core: GatewayCore;
  readonly principal: Principal;
  readonly interest: Interest;
  readonly since: Cursor | undefined;
  readonly voice: Voice;
  readonly answer: OpenAnswer;
  /** Called once, when it is over. */
  readonly closed: (stream: EventStream) => void;
}

export class EventStream implements Reader {
  readonly principal: Principal;
  /** @throws ProblemError `unavailable` */
  readonly started: Promise<FollowStart>;
  readonly #options: EventStreamOptions;
  readonly #outbox: Outbox;
  readonly #follow: Follow;
  /** What the client was told last that it has. */
  #place = '';
  #opened = false;
  #ended = false;
  #heartbeat: { cancel(): void } | undefined;
  #expiry: { cancel(): void } | undefined;

  constructor(options: EventStreamOptions) {
    const { core, principal, interest, since, answer } = options;
    const { hub, config, metrics } = core;
    this.#options = options;
    this.principal = principal;
    this.#outbox = new Outbox({
      turn: hub.turn,
      stream: answer.stream,
      limit: config.sendBuffer,
      sent: metrics.bytesOut,
      buffered: metrics.buffered,
      overflow: () => this.end('slowConsumer'),
    });
    answer.watch(() => this.#gone());
    this.#follow = hub.follow({
      audience: principal.audience,
      filters: interest.filters,
      since,
      mayReceive: receives(principal, interest),
      reader: this,
    });
    this.started = this.#follow.started;
  }

  /** Whether the client is gone, or was sent away. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Begins the answer, and lets events flow. */
  open({ place, recovered }: FollowStart, headers: Readonly<Record<string, string>>): void {
    const { core, answer, voice, principal } = this.#options;
    this.#opened = true;
    core.metrics.streams.inc();
    core.metrics.opened.event_stream.inc();
    answer.begin(headers);
    this.#place = place;
    const retry = retryLine(RETRY.least + Math.random() * (RETRY.most - RETRY.least));
    const head = retry + idLine(voice.id(place));
    this.#outbox.send(
      recovered ? Buffer.from(head + BLOCK_END) : textBlock(head + eventLine('recovered'), 'false'),
    );
    this.#scheduleHeartbeat();
    if (principal.expiresAt !== undefined) {
      this.#expiry = core.wheel.at(principal.expiresAt * 1_000, () => this.end('tokenExpired'));
    }
    this.#follow.begin();
  }

  take(event: FeedEvent, place: string | undefined): void {
    const bytes = this.#options.voice.event(event, place, this.#place);
    if (place !== undefined) this.#place = place;
    if (!bytes) return;
    this.#options.core.metrics.deliveries.event_stream.inc();
    this.#outbox.send(bytes);
  }

  room(): Promise<void> | undefined {
    return this.#outbox.room();
  }

  broken(_error: ProblemError): void {
    this.end('restart');
  }

  /** Ends the stream of a token that is no longer good. */
  revoke(): void {
    this.end('tokenRevoked');
  }

  /** Tells the client to come back after a while, in milliseconds, and ends the stream. */
  sendElsewhere(afterMs: number): void {
    if (this.#ended) return;
    this.#outbox.send(Buffer.from(retryLine(afterMs) + BLOCK_END));
    this.end('restart');
  }

  /** Ends the stream: what is queued is written first, but for a client that does not read. */
  end(reason: End): void {
    if (this.#ended) return;
    const { core, answer } = this.#options;
    core.metrics.closes[reason].inc();
    this.#outbox.close();
    this.#leave();
    answer.close(reason);
  }

  /** Ends it without waiting for the client. */
  terminate(): void {
    this.#options.answer.terminate();
  }

  #scheduleHeartbeat(): void {
    const { core, voice } = this.#options;
    this.#heartbeat = core.wheel.at(Date.now() + core.config.heartbeat, () => {
      this.#place = this.#follow.rest() ?? this.#place;
      this.#outbox.send(voice.heartbeat(this.#place));
      this.#scheduleHeartbeat();
    });
  }

  #leave(): void {
    this.#ended = true;
    this.#follow.close();
    this.#heartbeat?.cancel();
    this.#expiry?.cancel();
  }

  #gone(): void {
    this.#outbox.drop();
    if (!this.#ended) this.#leave();
    if (this.#opened) this.#options.core.metrics.streams.dec();
    this.#options.closed(this);
  }
}
