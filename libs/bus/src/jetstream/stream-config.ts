/**
 * The streams as they have to be (docs/protocols/events.md, "Subjects"), and the way there from what a
 * server has.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  DiscardPolicy,
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamManager,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
  type StreamInfo,
  type StreamUpdateConfig,
} from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { PAYLOAD_LIMIT, STREAMS } from '@posthorn/contracts';

/** What an operator decides. */
export interface StreamLimits {
  /** How long events are kept, in seconds. */
  readonly maxAgeSeconds: number;
  /** How many bytes each of the two event streams may hold; the server reserves them. */
  readonly maxBytes: number;
  /** Copies of each message: 1, 3 or 5. */
  readonly replicas: number;
}

/** A week, and 10 GiB for each scope. */
export const STREAM_DEFAULTS: StreamLimits = {
  maxAgeSeconds: 7 * 24 * 3600,
  maxBytes: 10 * 1024 ** 3,
  replicas: 1,
};

const DEAD_LETTERS = { maxAgeSeconds: 30 * 24 * 3600, maxBytes: 1024 ** 3 } as const;

/** Within it, a publish with the same `Nats-Msg-Id` is the same event. */
const DUPLICATE_WINDOW_SECONDS = 120;

/** Headers of an event, and of a dead letter that carries the event's beside its own. */
const HEADER_BYTES = 64 * 1024;

const SETTINGS = [
  'subjects',
  'storage',
  'retention',
  'discard',
  'max_age',
  'max_bytes',
  'max_msgs',
  'max_msgs_per_subject',
  'max_msg_size',
  'max_consumers',
  'duplicate_window',
  'num_replicas',
  'allow_direct',
  'allow_rollup_hdrs',
  'no_ack',
  'sealed',
  'republish',
] as const satisfies readonly (keyof StreamConfig)[];

/** A setting that is looked after. All others (placement, description, compression, …) are the operator's. */
export type StreamSetting = (typeof SETTINGS)[number];

/** How one stream has to be. */
export type WantedStream = Readonly<
  Pick<StreamConfig, 'name' | Exclude<StreamSetting, 'no_ack' | 'republish'>> &
    Pick<StreamUpdateConfig, 'republish'> & { no_ack: boolean }
>;

/** PH_GLOBAL, PH_LOCAL and PH_DEAD as they have to be. */
export function streamConfigs({ maxAgeSeconds, maxBytes, replicas }: StreamLimits): readonly WantedStream[] {
  const common = {
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.Old,
    max_msgs: -1,
    max_msgs_per_subject: -1,
    max_consumers: -1,
    num_replicas: replicas,
    allow_direct: true,
    // With roll-ups allowed, one header of a publisher purges the stream.
    allow_rollup_hdrs: false,
    no_ack: false,
    sealed: false,
  };
  const events = (name: string, subjects: string, dest: string): WantedStream => ({
    ...common,
    name,
    subjects: [subjects],
    max_age: nanos(maxAgeSeconds),
    max_bytes: maxBytes,
    max_msg_size: PAYLOAD_LIMIT.service + HEADER_BYTES,
    // The server refuses a window that is longer than messages are kept.
    duplicate_window: nanos(Math.min(DUPLICATE_WINDOW_SECONDS, maxAgeSeconds)),
    republish: { src: subjects, dest },
  });
  const { global, local, dead } = STREAMS;
  return [
    events(global.name, global.subjects, 'ph-live.{{wildcard(1)}}.>'),
    events(local.name, local.subjects, 'ph-live-local.{{wildcard(1)}}.>'),
    {
      ...common,
      name: dead.name,
      subjects: [dead.subjects, dead.redrives],
      max_age: nanos(DEAD_LETTERS.maxAgeSeconds),
      max_bytes: Math.min(DEAD_LETTERS.maxBytes, maxBytes),
      max_msg_size: PAYLOAD_LIMIT.service + 2 * HEADER_BYTES,
      duplicate_window: nanos(DUPLICATE_WINDOW_SECONDS),
    },
  ];
}

/** One setting of a stream that is not as wanted. */
export interface StreamDifference {
  readonly stream: string;
  readonly setting: StreamSetting;
  readonly is: unknown;
  readonly wanted: unknown;
  /** Whether the server can change it on a stream that exists. */
  readonly changeable: boolean;
}

/** What no server changes on an existing stream, or not into what is wanted here. */
const FIXED: ReadonlySet<StreamSetting> = new Set(['storage', 'retention', 'max_consumers', 'sealed']);

/**
 * Which settings of a stream are not as wanted.
 * @param serverVersion such as `2.9.10`: from 2.10 on `republish` can be changed too
 */
export function diffStream(
  current: Partial<StreamConfig>,
  wanted: WantedStream,
  serverVersion: string,
): StreamDifference[] {
  return SETTINGS.flatMap((setting) => {
    const is = normal(setting, current);
    const want = normal(setting, wanted);
    if (isDeepStrictEqual(is, want)) return [];
    const changeable = setting === 'republish' ? canChangeRepublish(serverVersion) : !FIXED.has(setting);
    return [{ stream: wanted.name, setting, is, wanted: want, changeable }];
  });
}

/** Servers leave out what is false; `republish` has a further flag whose default is false. */
function normal(setting: StreamSetting, config: Partial<StreamConfig> | WantedStream): unknown {
  if (setting === 'republish') {
    const { republish } = config;
    return republish ? { ...republish, headers_only: republish.headers_only ?? false } : null;
  }
  return config[setting] ?? false;
}

function canChangeRepublish(serverVersion: string): boolean {
  const [major = 0, minor = 0] = serverVersion.split('.').map(Number);
  return major > 2 || (major === 2 && minor >= 10);
}

/** A stream cannot be made as it has to be. The message names stream, setting, and what to do. */
export class ProvisioningError extends Error {
  constructor(
    readonly stream: string,
    problem: string,
    readonly remedy: string,
    options?: ErrorOptions,
  ) {
    super(`Stream ${stream}: ${problem}. ${remedy}`, options);
    this.name = 'ProvisioningError';
  }
}

/** What was done to a stream. */
export interface ProvisionedStream {
  readonly stream: string;
  readonly outcome: 'created' | 'updated' | 'unchanged';
  /** What was changed. */
  readonly changed: readonly StreamDifference[];
}

/**
 * Creates the streams that are missing and changes what differs and can be changed. Replicas may do it side
 * by side: a server takes the same creation twice, and whoever loses a race looks again.
 *
 * @throws {ProvisioningError} where a stream differs in what cannot be changed (it is left as it is), or the
 *   server refuses for a reason that waiting does not mend. Other errors are worth another try.
 */
export async function provisionStreams(
  nc: NatsConnection,
  wanted: readonly WantedStream[],
): Promise<ProvisionedStream[]> {
  const jsm = await jetstreamManager(nc);
  const provisioned: ProvisionedStream[] = [];
  for (const stream of wanted) {
    // Seen on 2.9: a lone server takes such an update, and does not load the stream after its next restart.
    if (stream.num_replicas > 1 && nc.info?.cluster === undefined) {
      throw new ProvisioningError(
        stream.name,
        `${stream.num_replicas} replicas are wanted, and the NATS server is not in a cluster`,
        SET_REPLICAS,
      );
    }
    provisioned.push(await provisionStream(jsm, nc.info?.version ?? '', stream));
  }
  return provisioned;
}

/** How a stream stands: `missing`, or how it differs from what is wanted. */
export interface StreamState {
  readonly stream: string;
  readonly missing: boolean;
  readonly differences: readonly StreamDifference[];
  /** What the server says of it; undefined where it is missing. */
  readonly info: StreamInfo | undefined;
}

/** Looks, and changes nothing. */
export async function inspectStreams(
  nc: NatsConnection,
  wanted: readonly WantedStream[],
): Promise<StreamState[]> {
  const jsm = await jetstreamManager(nc);
  const version = nc.info?.version ?? '';
  return Promise.all(
    wanted.map(async (stream) => {
      const info = await currentInfo(jsm, stream.name);
      const differences = info ? diffStream(info.config, stream, version) : [];
      return { stream: stream.name, missing: info === undefined, differences, info };
    }),
  );
}

/** A difference as operators read it: `max_age is 3600 s, wanted 604800 s`. */
export function describeDifference({ setting, is, wanted }: StreamDifference): string {
  return `${setting} is ${shown(setting, is)}, wanted ${shown(setting, wanted)}`;
}

async function provisionStream(
  jsm: JetStreamManager,
  version: string,
  wanted: WantedStream,
): Promise<ProvisionedStream> {
  const stream = wanted.name;
  for (let attempt = 1; ; attempt++) {
    try {
      const current = (await currentInfo(jsm, stream))?.config;
      if (!current) {
        await jsm.streams.add({ ...wanted });
        return { stream, outcome: 'created', changed: [] };
      }
      const differences = diffStream(current, wanted, version);
      if (differences.length === 0) return { stream, outcome: 'unchanged', changed: [] };
      const fixed = differences.filter(({ changeable }) => !changeable);
      if (fixed.length > 0) throw cannotChange(stream, fixed);
      // The client lays this over the current configuration: a `republish` that is not wanted has to be unset.
      await jsm.streams.update(stream, { republish: undefined, ...wanted });
      return { stream, outcome: 'updated', changed: differences };
    } catch (error) {
      if (lostRace(error) && attempt < 5) continue;
      throw refusal(stream, error) ?? error;
    }
  }
}

async function currentInfo(jsm: JetStreamManager, stream: string): Promise<StreamInfo | undefined> {
  try {
    return await jsm.streams.info(stream);
  } catch (error) {
    if (isApiError(error, JetStreamApiCodes.StreamNotFound)) return undefined;
    throw error;
  }
}

function cannotChange(stream: string, fixed: readonly StreamDifference[]): ProvisioningError {
  const settings = fixed.map(describeDifference).join('; ');
  const newer = fixed.every(({ setting }) => setting === 'republish')
    ? ' Or run NATS 2.10 or later, which can change it.'
    : '';
  return new ProvisioningError(
    stream,
    `${settings}; this NATS server cannot change that on an existing stream`,
    `Save its events if they are needed (nats stream backup ${stream} <directory>), remove it ` +
      `(nats stream rm ${stream}) and start again: it is created as wanted, and its positions begin anew.${newer}`,
  );
}

const STREAM_NAME_IN_USE = 10058;

const SET_REPLICAS = 'Set STREAM_REPLICAS=1, or connect to a NATS cluster of at least that many servers.';

/** What helps, by the server's error code. Other refusals may end by themselves. */
const REMEDIES: ReadonlyMap<number, string> = new Map([
  [
    10047, // insufficient storage
    'The server reserves each stream in full: set STREAM_MAX_BYTES lower, or raise max_file_store in the ' +
      "NATS configuration (or the account's limit).",
  ],
  [10052, 'Compare the stream with its configuration (nats stream info) and change it there.'], // invalid update
  [10065, 'Find the other stream with nats stream ls --subject, and remove it or its subjects.'], // overlap
  [10074, SET_REPLICAS],
]);

/** Another replica created or removed the stream between our look and our act. */
function lostRace(error: unknown): boolean {
  return isApiError(error, JetStreamApiCodes.StreamNotFound) || isApiError(error, STREAM_NAME_IN_USE);
}

function isApiError(error: unknown, code: number): boolean {
  return error instanceof JetStreamApiError && error.code === code;
}

/** What the server will refuse again, as an error for operators. */
function refusal(stream: string, error: unknown): ProvisioningError | undefined {
  const remedy = error instanceof JetStreamApiError ? REMEDIES.get(error.code) : undefined;
  if (remedy === undefined) return undefined;
  return new ProvisioningError(stream, `the server says: ${(error as Error).message}`, remedy, {
    cause: error,
  });
}

/** How one bucket has to be that an app projects its state into: its latest value for each key, for as long as it stands. */
export function bucketOptions(replicas: number): { history: 1; replicas: number; allow_direct: false } {
  return { history: 1, replicas, allow_direct: false };
}

/** How a bucket made with {@link bucketOptions} stands. Looks, and changes nothing. */
export async function inspectBucket(
  nc: NatsConnection,
  bucket: string,
  replicas: number,
): Promise<StreamState> {
  const stream = `KV_${bucket}`;
  const info = await currentInfo(await jetstreamManager(nc, { checkAPI: false }), stream);
  const wanted = {
    storage: StorageType.File,
    max_age: 0,
    max_msgs_per_subject: bucketOptions(replicas).history,
    num_replicas: replicas,
    allow_direct: false,
  } satisfies Partial<StreamConfig>;
  const settings = Object.keys(wanted) as (keyof typeof wanted)[];
  const differences = settings.flatMap((setting): StreamDifference[] => {
    const is = info?.config[setting] ?? false;
    if (!info || is === wanted[setting]) return [];
    return [{ stream, setting, is, wanted: wanted[setting], changeable: !FIXED.has(setting) }];
  });
  return { stream, missing: info === undefined, differences, info };
}

function shown(setting: StreamSetting, value: unknown): string {
  if (value === null) return 'not set';
  if (setting === 'max_age' || setting === 'duplicate_window') return `${Number(value) / 1e9} s`;
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function nanos(seconds: number): number {
  return seconds * 1e9;
}
