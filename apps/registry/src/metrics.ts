import { STREAMS } from '@posthorn/contracts';
import { type Level, labelled, type Metrics } from '@posthorn/service';

const NAMES = [STREAMS.global.name, STREAMS.local.name, STREAMS.dead.name] as const;

/** One stream as its leader tells of it. */
export interface StreamMeasures {
  readonly bytes: Level;
  readonly limit: Level;
  readonly messages: Level;
  readonly replicas: Level;
  readonly wanted: Level;
}

/** What the registry tells of the streams: as of its last look, which is at most half a minute old. */
export class RegistryMetrics {
  readonly streams: ReadonlyMap<string, StreamMeasures>;

  constructor(metrics: Metrics) {
    const gauges = (name: string, help: string) => metrics.gauges(name, help, labelled('stream', NAMES));
    const bytes = gauges('stream_bytes', 'What a stream takes on each replica');
    const limit = gauges(
      'stream_limit_bytes',
      'What a stream may take: the oldest events go beyond it; 0: no limit',
    );
    const messages = gauges('stream_messages', 'Messages in a stream');
    const replicas = gauges(
      'stream_replicas_current',
      'Replicas that have all of a stream, its leader included',
    );
    const wanted = gauges('stream_replicas_wanted', 'Replicas that a stream is configured with');
    this.streams = new Map(
      NAMES.map((name) => [
        name,
        {
          bytes: bytes[name],
          limit: limit[name],
          messages: messages[name],
          replicas: replicas[name],
          wanted: wanted[name],
        },
      ]),
    );
  }
}
