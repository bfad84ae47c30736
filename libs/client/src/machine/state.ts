/** What the machine knows: all of it, and nothing that can be told from the rest. */
import type { PosthornError } from '../error.js';
import type { Place, Reader } from '../place.js';
import type { TopicName } from '../topic.js';
import type { EventInfo, Transport } from '../types.js';
import type { Effect } from './effect.js';
import type { Draft } from './event.js';

export interface MachineOptions {
  /** Any integer. */
  readonly seed: number;
  /** What the client may use, in the order of preference. */
  readonly transports: readonly Transport[];
  readonly publishTimeout: number;
  readonly queueLimit: number;
  readonly frameLimit: number;
}

/** Those of a topic's listeners that stand at one place. */
export interface Group {
  readonly reader: Reader;
  listeners: readonly number[];
  /** Those that were not told that they have begun. */
  waiting: number[];
}

export interface Topic {
  readonly name: TopicName;
  /** As the server is asked for it. */
  readonly wire: string;
  readonly pattern: boolean;
  readonly groups: Group[];
  /** The connection on which it is asked for, the one on which it was last, the question's number, what was asked. */
  asked: number;
  last: number;
  /** When it was asked for, and when nobody heard it any more, as counts. */
  askedAt: number;
  leftAt: number;
  /** How often it was ended on that connection and the server has not said so yet. */
  leaving: number;
  ref: string;
  since?: string | undefined;
  /** Whether the server has said so on that connection. */
  begun: boolean;
  retryAt?: number | undefined;
  failures: number;
  /** Where it begins on the connection, if it was not asked for from a place. */
  start?: Place | undefined;
  /** Whether a pattern is still given what it missed. */
  lags: boolean;
  /** What came ahead of missed events. */
  held: { readonly info: EventInfo; readonly message: unknown }[];
}

export interface Publish extends Draft {
  readonly called: number;
  /** When it was sent first. */
  sent?: number | undefined;
  /** The connection that it is on its way on; -1 for HTTP, 0 for none. */
  via: number;
  by: number;
  notBefore: number;
  failures: number;
  /** Goes by HTTP, whatever the connection. */
  post: boolean;
  /** Whether it was sent once and no answer came. */
  unanswered: boolean;
  /** With which it was refused for the moment. */
  problem?: PosthornError | undefined;
}

export interface Attempt {
  readonly n: number;
  readonly streams: boolean;
  step: 'token' | 'sign' | 'opening';
  by: number;
  problem?: PosthornError | undefined;
}

export interface Link {
  readonly n: number;
  readonly streams: boolean;
  readonly id: string;
  readonly opened: number;
  /** When the next ping is due; undefined while one is unanswered, and on a stream. */
  pingAt: number | undefined;
  pinged: number;
  /** When it counts as lost unless something comes. */
  lostAt?: number | undefined;
  renewAt?: number | undefined;
  /** A renewal on its way: its `ref` once it was sent. */
  renewing?: string | undefined;
  comeBackIn?: number | undefined;
  /** Whether a broadcast has come on it. */
  announced: boolean;
  /** Whether missed broadcasts were asked for: a connection brings them once. */
  resumed?: boolean;
  /** Whether another one has to take its place: it cannot bring what is asked for. */
  spent: boolean;
  problem?: PosthornError | undefined;
}

export interface State {
  readonly options: MachineOptions;
  /** The time of the event at work, and what it wants done, in this order. */
  time: number;
  effects: Effect[];
  phase: 'new' | 'running' | 'closed';
  seed: number;
  count: number;
  online: boolean;
  visible: boolean;
  attempt?: Attempt | undefined;
  link?: Link | undefined;
  /** When the next attempt is due, and whether the server has set that time. */
  retryAt?: number | undefined;
  imposed: boolean;
  failures: number;
  refusals: number;
  streaming: boolean;
  upgradeAt: number;
  restreamAt?: number | undefined;
  token?: string | undefined;
  /** A token that the server has refused. */
  bad?: string | undefined;
  problem?: PosthornError | undefined;
  readonly topics: Map<string, Topic>;
  readonly publishes: Map<string, Publish>;
  toldState: string;
}

export function newState(options: MachineOptions): State {
  return {
    options,
    time: 0,
    effects: [],
    phase: 'new',
    seed: options.seed | 0,
    count: 0,
    online: true,
    visible: true,
    imposed: false,
    failures: 0,
    refusals: 0,
    streaming: options.transports[0] === 'stream',
    upgradeAt: 0,
    topics: new Map(),
    publishes: new Map(),
    toldState: '',
  };
}
