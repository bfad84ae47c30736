/** What NATS servers say on their monitoring port, and to no client: sync_interval, the room of the disks, their time. */
import type { ClockReading } from './clock.js';
import { type Finding, finding, ok, reasonOf } from './finding.js';
import { atLeastVersion, bytesText } from './nats.js';

/** Servers flush within it in `k8s/base/nats/nats.conf`. */
const WANTED_SYNC_S = 10;
const PATIENCE_MS = 3_000;
const NS_PER_S = 1e9;

/** The part of `/varz` that is read, nats-server 2.9 to 2.12. */
interface Varz {
  readonly server_name: string;
  readonly version: string;
  readonly now: string;
  readonly jetstream?: {
    readonly config?: {
      readonly max_storage: number;
      /** In nanoseconds; since 2.10. */
      readonly sync_interval?: number;
      readonly sync_always?: boolean;
    };
    readonly stats?: { readonly storage: number; readonly reserved_storage: number };
  };
}

/** One server, as its monitoring port shows it. */
export interface Monitored {
  readonly varz: Varz;
  readonly clock: ClockReading;
}

/**
 * Asks each server.
 * @param urls monitoring URLs, separated by commas
 * @throws naming the URL that does not answer
 */
export function askMonitors(urls: string): Promise<Monitored[]> {
  return Promise.all(
    urls.split(',').map(async (url) => {
      const target = new URL('/varz', url.trim());
      try {
        const asked = Date.now();
        const response = await fetch(target, { signal: AbortSignal.timeout(PATIENCE_MS) });
        const varz = (await response.json()) as Varz;
        if (!response.ok || typeof varz.version !== 'string')
          throw new Error(`no NATS server: it answered ${response.status}`);
        return { varz, clock: { asked, answered: Date.now(), theirs: Date.parse(varz.now) } };
      } catch (error) {
        const { cause } = error as { cause?: unknown };
        throw new Error(`${target.host}: ${reasonOf(cause ?? error)}`, { cause: error });
      }
    }),
  );
}

const SET_SYNC = `Set sync_interval: ${WANTED_SYNC_S}s in the jetstream block of every server (always: a flush with each write, at a cost), and restart one after the other.`;

/** @param servers undefined where no monitoring URL is given */
export function syncFindings(servers: readonly Monitored[] | undefined): Finding[] {
  if (servers === undefined)
    return [
      finding(
        'jetstream.sync',
        'unchecked',
        'servers show it on their monitoring port only, and NATS_MONITOR_URL is not set',
        'Ask each server, `wget -qO- http://127.0.0.1:8222/varz`, for jetstream.config.sync_interval (in nanoseconds) or sync_always; or set NATS_MONITOR_URL to these ports.',
      ),
    ];
  return servers.map(({ varz }) => syncFinding(varz));
}

function syncFinding({ server_name, version, jetstream }: Varz): Finding {
  const { sync_interval, sync_always } = jetstream?.config ?? {};
  if (sync_always) return ok('jetstream.sync', `${server_name} flushes with each write`);
  if (!atLeastVersion(version, '2.10'))
    return finding(
      'jetstream.sync',
      'warning',
      `${server_name} is NATS ${version}, which flushes every two minutes and cannot be told otherwise`,
      `Upgrade. ${SET_SYNC}`,
    );
  if (sync_interval === undefined)
    return finding(
      'jetstream.sync',
      'unchecked',
      `${server_name} does not show its sync_interval`,
      'Look into its configuration. Not set means two minutes.',
    );
  const seconds = sync_interval / NS_PER_S;
  const found = `${server_name} flushes every ${seconds} s`;
  return seconds <= WANTED_SYNC_S
    ? ok('jetstream.sync', found)
    : finding('jetstream.sync', 'warning', found, SET_SYNC);
}

/**
 * Whether the servers have room for the streams.
 * @param reserved bytes that the streams may hold on one server, all together
 */
export function roomFindings(servers: readonly Monitored[], reserved: number): Finding[] {
  return servers.flatMap(({ varz: { server_name, jetstream } }) => {
    const most = jetstream?.config?.max_storage;
    if (most === undefined) return [];
    const found = `${server_name} has ${bytesText(most)} for JetStream, and our streams may hold ${bytesText(reserved)}`;
    return [
      most >= reserved
        ? ok('jetstream.room', found)
        : finding(
            'jetstream.room',
            'failure',
            found,
            'Raise max_file_store and the disk, or lower STREAM_MAX_BYTES.',
          ),
    ];
  });
}
