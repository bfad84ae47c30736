/**
 * What the gateway works with once NATS is there. HTTP listens before that, so that an operator can ask what
 * is missing; until then every call is answered `unavailable`.
 */
import { type Bus, JetStreamBus } from '@posthorn/bus/platform';
import { appInbox, ProblemError } from '@posthorn/contracts';
import {
  checkAtStart,
  connectNats,
  createVerifier,
  KeyRing,
  type NatsLink,
  NatsMetrics,
  natsFindings,
  natsSettings,
  RevocationList,
  RpcClient,
  type Service,
  type Tracing,
  type Verifier,
} from '@posthorn/service';
import type { GatewayConfig } from './config.js';
import { configurationFindings } from './doctor.js';
import { AddressGate } from './http/address-gate.js';
import { Origins } from './http/origins.js';
import { Hub } from './hub/hub.js';
import { Turn } from './hub/turn.js';
import { Wheel } from './hub/wheel.js';
import { GatewayMetrics } from './metrics.js';
import { Places } from './places.js';
import { keepReporting, metered, Quotas } from './quota.js';

interface Parts {
  readonly link: NatsLink;
  readonly bus: JetStreamBus;
  readonly publisher: Pick<Bus, 'publish'>;
  readonly hub: Hub;
  readonly rpc: RpcClient;
  readonly revocations: RevocationList;
}

export class GatewayCore {
  readonly config: GatewayConfig;
  readonly service: Service;
  readonly verifier: Verifier;
  readonly keys: KeyRing;
  readonly origins: Origins;
  readonly wheel = new Wheel();
  readonly metrics: GatewayMetrics;
  readonly addresses: AddressGate;
  /** What sockets and event streams take. */
  readonly connections: Places;
  readonly #natsMetrics: NatsMetrics;
  #parts: Parts | undefined;

  constructor(config: GatewayConfig, service: Service) {
    this.config = config;
    this.service = service;
    const verifier = createVerifier({
      jwtSecret: config.jwtSecret,
      jwksUrl: config.jwksUrl,
      issuer: config.jwtIssuer,
      production: config.nodeEnv === 'production' && !config.courierCompat,
    });
    this.keys = new KeyRing(config.keySecret);
    // The demo's page is the gateway's own.
    this.origins = new Origins(config.allowedOrigins, config.demo);
    this.connections = new Places(config.connectionLimit, 'sockets and event streams');
    this.metrics = new GatewayMetrics(service.metrics, () => this.#parts?.hub.size ?? 0, config.sendBuffer);
    this.#natsMetrics = new NatsMetrics(service.metrics);
    this.verifier = { verify: (token) => this.metrics.checked('jwt', verifier.verify(token)) };
    this.addresses = new AddressGate({ config, metrics: this.metrics, logger: service.logger });
    service.health.expect('nats', 'streams', 'revocations');
  }

  /**
   * Connects, and waits for everything the gateway needs; resolves once it can serve.
   * @throws {StartError} in production, where it would not be safe
   */
  async open(): Promise<void> {
    const { config, service } = this;
    const { logger, health, shutdown } = service;
    const production = config.nodeEnv === 'production';
    await checkAtStart(production, logger, () => configurationFindings(config, true));
    const link = await connectNats({
      ...natsSettings(config),
      name: 'gateway',
      inboxPrefix: appInbox('gateway'),
      logger,
      health,
      metrics: this.#natsMetrics,
      signal: shutdown.signal,
    });
    shutdown.on('close', 'nats', () => link.close());
    await checkAtStart(production, logger, () => natsFindings(link.connection.info, config, true));
    const [bus, revocations] = await Promise.all([
      service.waitFor('streams', () =>
        JetStreamBus.open({
          nc: link.connection,
          instance: config.instance,
          audience: null,
          connected: () => link.isConnected(),
          observer: this.metrics.bus,
          tracer: service.tracing,
          log: (level, message, fields) => logger[level](fields, message),
        }),
      ),
      service.waitFor('revocations', () => RevocationList.load(link, { logger })),
    ]);
    const hub = new Hub({
      bus,
      turn: new Turn({ written: (published) => this.metrics.written(published) }),
      delivered: this.metrics.deliveries.session,
      retention: (audience, filter) => bus.topics.retention(audience, filter),
      resumed: (outcome) => this.metrics.resumes[outcome].inc(),
      pageRead: () => this.metrics.pollPages.inc(),
      tracer: service.tracing,
    });
    this.wheel.start();
    shutdown.on('flush', 'bus', async () => {
      bus.close();
      this.wheel.stop();
      await revocations.close();
    });
    const rpc = new RpcClient(link, service.tracing);
    const quotas = new Quotas();
    keepReporting({ quotas, rpc, service, reports: this.metrics.usageReports });
    this.#parts = {
      link,
      bus,
      publisher: traced(metered(bus, quotas), service.tracing),
      hub,
      rpc,
      revocations,
    };
  }

  get bus(): JetStreamBus {
    return this.#ready().bus;
  }

  /** The one door for what callers publish, whatever face they came by: their audiences' quotas are kept here. */
  get publisher(): Pick<Bus, 'publish'> {
    return this.#ready().publisher;
  }

  get hub(): Hub {
    return this.#ready().hub;
  }

  get rpc(): RpcClient {
    return this.#ready().rpc;
  }

  get revocations(): RevocationList {
    return this.#ready().revocations;
  }

  /** Whether sockets can be served now. */
  get connected(): boolean {
    return this.#parts?.link.isConnected() ?? false;
  }

  #ready(): Parts {
    if (!this.#parts) {
      throw new ProblemError('unavailable', 'The gateway waits for its services', { retryAfter: 1 });
    }
    return this.#parts;
  }
}

/** Makes what a traced call publishes a part of its trace. */
function traced(publisher: Pick<Bus, 'publish'>, tracing: Tracing | undefined): Pick<Bus, 'publish'> {
  if (!tracing) return publisher;
  return {
    publish: (draft) => {
      const traceparent = tracing.current;
      return publisher.publish(traceparent === undefined ? draft : { ...draft, traceparent });
    },
  };
}
