/**
 * When live subscriptions are checked against the stream (docs/protocols/events.md, "Order, gaps, positions"):
 * each at its turn, and all at once when copies may just have been lost. One for all subscriptions of a bus.
 */
import type { NatsConnection, Subscription } from '@nats-io/transport-node';
import { type Position, type Scope, STREAMS } from '@posthorn/contracts';
import type { DurableParts } from './durable.js';
import type { Epochs } from './epochs.js';
import type { Horizon } from './horizon.js';

/** What is checked: a live subscription. */
export interface Watched {
  readonly scope: Scope;
  /**
   * Finds what is stored up to this place, the end of the stream a moment ago, and was not heard. Rejects where
   * the leader does not answer.
   */
  check(end: Position): Promise<void>;
}

export interface WatchParts {
  readonly nc: NatsConnection;
  readonly epochs: Epochs;
  readonly horizons: Readonly<Record<Scope, Horizon>>;
  readonly log: DurableParts['log'];
}

/** Milliseconds from one check of a subscription to the next: 15 s are promised, a busy process may be late. */
export const CHECK_INTERVAL = 14_000;
/** Parts of the interval. The subscriptions are spread over them. */
const SLOTS = 100;
/** Checks at the same time. */
const MAX_RUNNING = 64;
/** The pause before a leader that did not answer is asked again, in milliseconds. */
const RETRY = 1_000;
/**
 * When everything is checked once more after copies may have been lost, in milliseconds: servers may still be
 * telling each other who listens, and a new leader still applying what the old one has acknowledged.
 */
const SETTLED = 2_000;
/** Told by the server to the account of a stream when it has elected a leader for it. */
const LEADER_ELECTED = '$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED';
const NAMES: readonly string[] = [STREAMS.global.name, STREAMS.local.name];

/**
 * Signs that copies may just have been lost: the connection was another for a while (a server also closes one
 * that reads too slowly: that is its slow-consumer notice), somebody here reads too slowly, servers came or went.
 */
const SIGNS: ReadonlySet<string> = new Set(['reconnect', 'slowConsumer', 'update']);

export class Watch {
  /** Milliseconds from one check of a subscription to the next. */
  readonly interval: number;
  readonly #parts: WatchParts;
  readonly #slots: readonly Set<Watched>[] = Array.from({ length: SLOTS }, () => new Set<Watched>());
  readonly #slotOf = new Map<Watched, Set<Watched>>();

  #added = 0;
  #turn = 0;
  #ticking: NodeJS.Timeout | undefined;
  /** Checks that wait, with the place that they are to reach. */
  readonly #waiting = new Map<Watched, Position>();
  #running = 0;
  readonly #failed = new Set<Watched>();
  #retrying: NodeJS.Timeout | undefined;
  #settling: NodeJS.Timeout | undefined;
  #elections: Subscription | undefined;
  #closed = false;

  constructor(parts: WatchParts, interval = CHECK_INTERVAL) {
    this.#parts = parts;
    this.interval = interval;
  }

  add(watched: Watched): void {
    if (this.#closed) return;
    // Who comes at the same time is spread all over the interval.
    const slot = this.#slots[(this.#turn + this.#added++) % SLOTS]!;
    slot.add(watched);
    this.#slotOf.set(watched, slot);
    if (!this.#ticking) this.#begin();
  }

  remove(watched: Watched): void {
    this.#slotOf.get(watched)?.delete(watched);
    this.#slotOf.delete(watched);
    this.#waiting.delete(watched);
    this.#failed.delete(watched);
  }

  /** Checks every subscription now, and once more when the servers have settled. */
  readonly checkAll = (): void => {
    if (this.#closed) return;
    this.#check(this.#slotOf.keys());
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => this.#check(this.#slotOf.keys()), SETTLED);
    this.#settling.unref();
  };

  close(): void {
    this.#closed = true;
    if (!this.#parts.nc.isClosed()) this.#elections?.unsubscribe();
    clearInterval(this.#ticking);
    clearTimeout(this.#retrying);
    clearTimeout(this.#settling);
    for (const watched of [...this.#slotOf.keys()]) this.remove(watched);
  }

  /** A process that listens to nothing is not told anything, and asks nothing. */
  #begin(): void {
    const { nc, horizons, log } = this.#parts;
    this.#ticking = setInterval(() => {
      this.#turn = (this.#turn + 1) % SLOTS;
      this.#check(this.#slots[this.#turn]!);
    }, this.interval / SLOTS);
    this.#ticking.unref();
    for (const horizon of Object.values(horizons)) horizon.onLeaderChange = this.checkAll;
    this.#elections = nc.subscribe(`${LEADER_ELECTED}.*`, {
      callback: (error, msg) => {
        if (error) log('warn', 'leader changes are not told to this process', { error: String(error) });
        else if (NAMES.some((name) => msg.subject.endsWith(`.${name}`))) this.checkAll();
      },
    });
    void this.#follow();
  }

  /** Ends with the connection, and ends all else then. */
  async #follow(): Promise<void> {
    for await (const { type } of this.#parts.nc.status()) if (SIGNS.has(type)) this.checkAll();
    this.close();
  }

  #check(all: Iterable<Watched>): void {
    const scopes = new Map<Scope, Watched[]>();
    for (const watched of all) {
      const { scope } = watched;
      const some = scopes.get(scope);
      if (some) some.push(watched);
      else scopes.set(scope, [watched]);
    }
    for (const [scope, some] of scopes) {
      // Known before the end is asked for: a place of another stream is never taken for one of this.
      const epoch = this.#parts.epochs.of(scope);
      this.#parts.horizons[scope].ask().then(
        (sequence) => {
          const end = { epoch, sequence };
          for (const watched of some) if (this.#slotOf.has(watched)) this.#waiting.set(watched, end);
          this.#run();
        },
        () => this.#retry(some),
      );
    }
  }

  #run(): void {
    for (const [watched, end] of this.#waiting) {
      if (this.#running === MAX_RUNNING) return;
      this.#waiting.delete(watched);
      this.#running++;
      watched
        .check(end)
        .catch(() => this.#giveUp(watched))
        .finally(() => {
          this.#running--;
          this.#run();
        });
    }
  }

  /** The others would wait for the same leader in vain, each as long: they are asked about later, and before it. */
  #giveUp(watched: Watched): void {
    if (!this.#slotOf.has(watched)) return;
    const all = [...this.#waiting.keys(), watched];
    this.#waiting.clear();
    this.#retry(all);
  }

  #retry(some: readonly Watched[]): void {
    if (this.#closed) return;
    for (const watched of some) if (this.#slotOf.has(watched)) this.#failed.add(watched);
    if (this.#retrying || this.#failed.size === 0) return;
    this.#retrying = setTimeout(() => {
      this.#retrying = undefined;
      const again = [...this.#failed];
      this.#failed.clear();
      this.#check(again);
    }, RETRY);
    this.#retrying.unref();
  }
}
