/** The JetStream driver of the bus port: one per process, wired from small parts. */
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import {
  type Cursor,
  type Position,
  ProblemError,
  type Scope,
  STREAMS,
  type Topic,
  type TopicRecord,
  type Tracer,
} from '@posthorn/contracts';
import type {
  Bus,
  BusObserver,
  Draft,
  DurableHandler,
  DurableOptions,
  DurableSubscription,
  EphemeralHandler,
  EphemeralInterest,
  History,
  Interest,
  LiveHandler,
  LiveSubscription,
  Receipt,
  ResumeHandler,
  Resumption,
} from '../port.js';
import { Acknowledgements } from './acknowledgements.js';
import { consumeDurably, type DurableParts } from './durable.js';
import { EphemeralSender, followEphemeral } from './ephemeral.js';
import { Epochs } from './epochs.js';
import { EventReader } from './event-reader.js';
import type { HistoryParts } from './history.js';
import { Horizon } from './horizon.js';
import { InFlight } from './in-flight.js';
import { subscribeLive } from './live.js';
import { type NextEvent, nextEvent } from './next.js';
import { Publisher } from './publisher.js';
import { Recently } from './recently.js';
import { registryLookup } from './registry-lookup.js';
import { openHistory, resume } from './resume.js';
import { SharedHistory } from './shared-history.js';
import { TopicDirectory } from './topic-directory.js';
import { Watch } from './watch.js';

export interface JetStreamBusOptions {
  readonly nc: NatsConnection;
  /** This deployment's name: where local events go and come from. */
  readonly instance: string;
  /** Which audience's topics to know: one, or null for every one. */
  readonly audience: string | null;
  /** Whether the connection is up now. */
  readonly connected: () => boolean;
  readonly observer?: Partial<BusObserver>;
  /** Records what is published, and what durable consumers handle. */
  readonly tracer?: Tracer | undefined;
  readonly log?: DurableParts['log'];
  /** How long a publish waits for its acknowledgement, in milliseconds. Default 5,000. */
  readonly ackTimeout?: number;
  /** How long the leader may leave a reading of history without an answer, in milliseconds. Default 15,000. */
  readonly patience?: number;
  /** How often a silent topic is checked against its stream, in milliseconds. Default 14,000: 15 s are promised. */
  readonly checkInterval?: number;
}

/** How long an acknowledgement may take, in milliseconds. */
const ACK_TIMEOUT = 5_000;

export class JetStreamBus implements Bus {
  /** What this process knows of audiences and topics. */
  readonly topics: TopicDirectory;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  readonly instance: string;
  readonly #nc: NatsConnection;
  readonly #epochs = new Epochs();
  readonly #reader: EventReader;
  readonly #observer: BusObserver;
  readonly #publisher: Publisher;
  readonly #horizons: Record<Scope, Horizon>;
  readonly #recently: Record<Scope, Recently>;
  readonly #tracer: Tracer | undefined;
  readonly #log: DurableParts['log'];
  readonly #inFlight: InFlight;
  readonly #watch: Watch;
  readonly #patience: number | undefined;
  readonly #shared = new SharedHistory(({ scope }) => this.#historyParts(scope));

  private constructor(options: JetStreamBusOptions, jsm: JetStreamManager) {
    const { nc, instance, connected, ackTimeout = ACK_TIMEOUT } = options;
    this.#nc = nc;
    this.#inFlight = new InFlight(nc);
    this.instance = instance;
    this.#patience = options.patience;
    this.js = jetstream(nc);
    this.jsm = jsm;
    this.topics = new TopicDirectory(registryLookup(nc));
    this.#reader = new EventReader(this.topics);
    this.#observer = { ...SILENT, ...options.observer };
    this.#tracer = options.tracer;
    this.#log = options.log ?? (() => {});
    this.#horizons = {
      global: new Horizon(jsm, STREAMS.global.name, this.#inFlight),
      local: new Horizon(jsm, STREAMS.local.name, this.#inFlight),
    };
    const recently = (scope: Scope) =>
      new Recently({ jsm, inFlight: this.#inFlight, horizon: this.#horizons[scope] }, scope);
    this.#recently = { global: recently('global'), local: recently('local') };
    const { checkInterval } = options;
    const watched = { nc, epochs: this.#epochs, horizons: this.#horizons, log: this.#log };
    this.#watch = new Watch(watched, checkInterval);
    this.#publisher = new Publisher({
      acknowledgements: new Acknowledgements(nc, this.#inFlight, ackTimeout, (seconds) =>
        this.#observer.acknowledged(seconds),
      ),
      jsm,
      sender: new EphemeralSender(nc, this.#inFlight),
      topics: this.topics,
      epochs: this.#epochs,
      instance,
      inFlight: this.#inFlight,
      connected,
      ackTimeout,
      observer: this.#observer,
      tracer: this.#tracer,
    });
  }

  /** Resolves once the streams exist and what is known of topics was read: waits for the registry's work. */
  static async open(options: JetStreamBusOptions): Promise<JetStreamBus> {
    const jsm = await jetstreamManager(options.nc, { checkAPI: false });
    const bus = new JetStreamBus(options, jsm);
    await Promise.all([bus.#epochs.follow(options.nc), bus.topics.follow(options.nc, options.audience)]);
    return bus;
  }

  publish(draft: Draft): Promise<Receipt> {
    return this.#publisher.publish(draft);
  }

  live(interest: Interest, handler: LiveHandler): LiveSubscription {
    return subscribeLive(
      { ...this.#historyParts(interest.scope), nc: this.#nc, watch: this.#watch, log: this.#log },
      interest,
      handler,
    );
  }

  isEphemeral(audience: string, topic: Topic): boolean | Promise<boolean> {
    const judge = (record: TopicRecord | undefined) => record?.durable === false;
    const registration = this.topics.registration(topic, audience);
    return registration instanceof Promise ? registration.then(judge) : judge(registration);
  }

  ephemeral(interest: EphemeralInterest, handler: EphemeralHandler): { close(): void } {
    return followEphemeral(
      { nc: this.#nc, reader: this.#reader, observer: this.#observer, log: this.#log },
      interest,
      handler,
    );
  }

  async horizon(scope: Scope): Promise<Position> {
    const sequence = await this.#horizons[scope].ask();
    return { epoch: this.#epochs.of(scope), sequence };
  }

  async recently(scope: Scope, ago: number): Promise<Position> {
    try {
      const sequence = await this.#recently[scope].before(ago);
      return { epoch: this.#epochs.of(scope), sequence };
    } catch (cause) {
      throw new ProblemError('unavailable', 'The event store does not answer', { cause });
    }
  }

  history(interest: Interest, since: Cursor, until: Position): Promise<History> {
    return openHistory(this.#historyParts(interest.scope), this.#shared, interest, since, until);
  }

  /**
   * The first event after a cursor and when it was stored; undefined where there is none now, or the cursor is of
   * another stream. One question to the stream's leader.
   * @throws ProblemError `unavailable`
   */
  next(interest: Interest, since: Cursor): Promise<NextEvent | undefined> {
    // A look at an event is no delivery of it.
    return nextEvent({ ...this.#historyParts(interest.scope), observer: SILENT }, interest, since);
  }

  resume(interest: Interest, since: Cursor, handler: ResumeHandler): Resumption {
    return resume(this, interest, since, handler);
  }

  consume(options: DurableOptions, handler: DurableHandler): DurableSubscription {
    return consumeDurably(
      {
        nc: this.#nc,
        js: this.js,
        jsm: this.jsm,
        reader: this.#reader,
        epochs: this.#epochs,
        instance: this.instance,
        observer: this.#observer,
        tracer: this.#tracer,
        log: this.#log,
      },
      options,
      handler,
    );
  }

  #historyParts(scope: Scope): HistoryParts {
    return {
      patience: this.#patience,
      js: this.js,
      jsm: this.jsm,
      inFlight: this.#inFlight,
      reader: this.#reader,
      topics: this.topics,
      epochs: this.#epochs,
      horizon: this.#horizons[scope],
      instance: this.instance,
      observer: this.#observer,
    };
  }

  /** Stops following topics and epochs, and checking live subscriptions. The connection belongs to whoever opened it. */
  close(): void {
    this.#watch.close();
    this.topics.close();
    this.#epochs.close();
  }
}

const SILENT: BusObserver = {
  published() {},
  refused() {},
  acknowledged() {},
  delivered() {},
  replayed() {},
  dropped() {},
  gap() {},
  repaired() {},
  repairing() {},
  unanswered() {},
  settled() {},
};
