/** Tryton's `Bus` and `notify` for services (docs/protocols/tryton.md, "Server SDK"). */
import {
  type Cursor,
  notificationChannel,
  ProblemError,
  parseCursor,
  parseFilters,
  parseNotificationMessage,
} from '@posthorn/contracts';
import { nextMessage } from './next-message.js';
import type { Receipt } from './port.js';
import { driverOf, type PublishOptions, type PubSub } from './pubsub.js';

/** What a client gets. */
export interface BusMessage {
  /** What it tells as its last message when it asks again. */
  readonly message_id?: string;
  readonly type: string;
  readonly [member: string]: unknown;
}

/** A message and its channel, or that none came in time. */
export interface BusAnswer {
  readonly channel: string | null;
  readonly message: BusMessage | null;
  /** Only where messages were lost: false. */
  readonly recovered?: false;
}

/** On whose behalf a service works now. */
export interface Current {
  readonly user?: string | number | null;
  readonly client?: string | number | null;
}

export interface WaitOptions {
  /** How long to wait for a message, in milliseconds. Default 300,000. */
  readonly timeout?: number;
  /** How far back to begin without a last message, in milliseconds. Default 5,000. */
  readonly recent?: number;
  /** Ends the wait, as its timeout does. */
  readonly signal?: AbortSignal;
}

export interface Bus {
  /** Resolves once the message is stored. */
  publish(channel: string, message: object, options?: PublishOptions): Promise<Receipt>;
  /**
   * Resolves with the oldest message after the last one on any of the channels, at once or as soon as it comes; with
   * nulls where none came in time. Channels are taken as they are; a pattern takes several.
   * @param database the audience of the `PubSub`
   * @param lastMessage the `message_id` of a message, from here or from any gateway
   * @throws ProblemError `request_invalid`, `unavailable`
   */
  subscribe(
    database: string,
    channels: readonly string[],
    lastMessage?: string | null,
    options?: WaitOptions,
  ): Promise<BusAnswer>;
  /** What a client is answered with: the message has a type, by default its channel. */
  createResponse(channel: string, message: object): BusAnswer;
  /**
   * Pops up a text on the clients of a user, or on one client, which goes before the user. Where neither is given: the
   * current client, else the current user.
   * @param title one line, 1 to 200 characters
   * @param body text of any number of lines, not markup
   * @param priority from 0 (low) to 3 (urgent)
   * @throws ProblemError `request_invalid` with a pointer to each wrong parameter; as `publish`
   */
  notify(
    title: string,
    body?: string | null,
    priority?: number,
    user?: string | number | null,
    client?: string | number | null,
    options?: PublishOptions,
  ): Promise<Receipt>;
}

const TIMEOUT = 300_000;
const RECENT = 5_000;
/** A cursor of no stream: what an unknown last message stands for. */
const UNKNOWN: Cursor = { epoch: '', sequence: 0 };

/**
 * The bus of a database, on the connection of a `PubSub`. Made as often as it is needed: `busOf(pubsub, { user: 7 })`
 * for each request, say.
 * @throws TypeError for what `connectPubSub` did not make
 */
export function busOf(pubsub: PubSub, current: Current = {}): Bus {
  const { audience, ready, closing } = driverOf(pubsub);
  const publish: Bus['publish'] = (channel, message, options) =>
    pubsub.global.topic(channel).publish(message, options);

  async function subscribe(
    database: string,
    channels: readonly string[],
    lastMessage: string | null = null,
    { timeout = TIMEOUT, recent = RECENT, signal }: WaitOptions = {},
  ): Promise<BusAnswer> {
    if (database !== audience) {
      throw new ProblemError('request_invalid', `The connection is for the database ${audience}`);
    }
    const names = new Map(channels.flatMap((name) => parseFilters(name).map((filter) => [filter, name])));
    if (names.size === 0) throw new ProblemError('request_invalid', 'There is no channel to listen to');
    const bus = await ready();
    const ends = endsOf(timeout, signal ? [closing, signal] : [closing]);
    const { event, place, recovered } = await nextMessage(bus, {
      audience,
      filters: [...names.keys()],
      since: lastMessage === null ? undefined : (parseCursor(lastMessage) ?? UNKNOWN),
      recent,
      signal: ends.signal,
    }).finally(() => ends.abort());
    if (!event && closing.aborted) throw new ProblemError('unavailable', 'The connection was closed');
    const lost = recovered ? {} : ({ recovered: false } as const);
    if (!event) return { channel: null, message: null, ...lost };
    const channel = names.get(event.path) ?? event.topic.name;
    return { ...createResponse(channel, { ...event.message, message_id: place }), ...lost };
  }

  return {
    publish,
    subscribe,
    createResponse,
    async notify(title, body, priority, user, client, options) {
      const { message, ...named } = parseNotificationMessage({ title, body, priority, user, client });
      const caller = parseNotificationMessage({ title, ...current });
      return publish(notificationChannel(named, caller), message, options);
    },
  };
}

/**
 * Aborts after a time, or with any of the signals. Aborted when it is not needed any more, it leaves nothing at them:
 * `AbortSignal.any` does, and the signal of a connection lives as long as its process.
 */
function endsOf(timeout: number, signals: readonly AbortSignal[]): AbortController {
  const ends = new AbortController();
  const end = () => ends.abort();
  const timer = setTimeout(end, timeout).unref();
  ends.signal.addEventListener('abort', () => clearTimeout(timer));
  for (const signal of signals) {
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { signal: ends.signal });
  }
  return ends;
}

function createResponse(channel: string, message: object): BusAnswer {
  const { type } = message as { type?: unknown };
  return { channel, message: { ...message, type: typeof type === 'string' ? type : channel } };
}
