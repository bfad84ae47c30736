import { jetstreamManager, type StreamInfo } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import {
  describeDifference,
  inspectStreams,
  provisionStreams,
  type WantedStream,
} from '@posthorn/bus/platform';
import { BUCKETS } from '@posthorn/contracts';
import type { Logger } from '@posthorn/service';
import type { RegistryMetrics } from './metrics.js';

/** What {@link Streams} need. */
export interface StreamsOptions {
  readonly nc: NatsConnection;
  readonly wanted: readonly WantedStream[];
  readonly logger: Logger;
  readonly metrics: RegistryMetrics;
}

/** What servers tell of a stream that is worth a look. */
const ADVISORIES: ReadonlySet<string> = new Set(['CREATED', 'UPDATED', 'DELETED', 'RESTORE_COMPLETE']);

/** The streams' configuration: made so at the start, looked after from then on. */
export class Streams {
  readonly #options: StreamsOptions;

  constructor(options: StreamsOptions) {
    this.#options = options;
  }

  get names(): readonly string[] {
    return this.#options.wanted.map(({ name }) => name);
  }

  /**
   * Creates and updates the streams.
   * @throws {ProvisioningError} where only an operator can help
   */
  async provision(): Promise<void> {
    const { nc, wanted, logger } = this.#options;
    for (const { stream, outcome, changed } of await provisionStreams(nc, wanted)) {
      if (outcome === 'created') logger.info({ stream }, 'stream created');
      if (outcome === 'updated')
        logger.info({ stream, changed: changed.map(describeDifference) }, 'stream updated');
    }
  }

  /**
   * Creates streams that have gone missing. What differs is only reported: replicas with different
   * configurations, as in every roll-out of a change, would undo each other's work for ever.
   *
   * @returns a line for each setting that is not as wanted
   */
  async check(): Promise<string[]> {
    const { nc, wanted, logger } = this.#options;
    const states = await inspectStreams(nc, wanted);
    const missing = states.filter((state) => state.missing).map(({ stream }) => stream);
    if (missing.length > 0) {
      logger.error(
        { streams: missing },
        'streams are missing, and their events with them: creating them anew',
      );
      await provisionStreams(
        nc,
        wanted.filter(({ name }) => missing.includes(name)),
      );
    }
    return states.flatMap(({ stream, differences }) =>
      differences.map((difference) => `${stream}: ${describeDifference(difference)}`),
    );
  }

  /** Tells in metrics how large the streams are, and how many servers have them. */
  async measure(): Promise<void> {
    const { nc, metrics } = this.#options;
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    for (const [name, measures] of metrics.streams) {
      const info = await jsm.streams.info(name);
      const { config, state } = info;
      measures.bytes.set(state.bytes);
      measures.limit.set(Math.max(0, config.max_bytes));
      measures.messages.set(state.messages);
      measures.replicas.set(currentReplicas(info));
      measures.wanted.set(config.num_replicas);
    }
  }

  /**
   * Calls `look` when the servers tell that a stream or a bucket of ours was created, changed, restored or
   * deleted. They do not promise to: {@link check} has to run now and then too.
   */
  onAdvisory(look: () => void): void {
    const ours = new Set([...this.names, `KV_${BUCKETS.topics}`, `KV_${BUCKETS.streams}`]);
    this.#options.nc.subscribe('$JS.EVENT.ADVISORY.STREAM.*.*', {
      callback: (error, { subject }) => {
        const [kind = '', stream = ''] = subject.split('.').slice(-2);
        if (!error && ours.has(stream) && ADVISORIES.has(kind)) look();
      },
    });
  }
}

/** The leader, which answers, and those that have all that it has. */
function currentReplicas({ cluster }: StreamInfo): number {
  return 1 + (cluster?.replicas ?? []).filter(({ current, offline }) => current && !offline).length;
}
