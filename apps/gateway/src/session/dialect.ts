/**
 * How a connection's protocol looks on the wire. What happens on a connection is the session's; a dialect says
 * what the client's frames ask for, and how the client is told.
 */
import { asProblem, type ProblemError, type Room } from '@posthorn/contracts';
import type { Encoding } from '../hub/feed.js';
import { broadcastFrame, jsonFrame, messageFrame } from '../hub/frame.js';
import type { Sink } from '../hub/outbox.js';
import { type ClientFrame, MalformedFrame, parseClientFrame } from './client-frame.js';

/** What a client is told first. */
export interface Welcome {
  /** The connection's id. */
  readonly connection: string;
  readonly audience: string;
  /** When its token ends, ISO 8601; null for never. */
  readonly expires: string | null;
  /** The room that its token names. */
  readonly room?: Room;
}

export interface Dialect {
  /** What a frame asks for, or what is wrong with it, which is a strike; undefined for one to be passed over. */
  read(data: Buffer, isBinary: boolean): ClientFrame | ProblemError | undefined;
  /** Strikes that are borne in a minute. */
  readonly strikes: number;
  /** Whether a publish over the rate is refused. Where a client could not be told, it is taken later. */
  readonly refusesExcess: boolean;
  welcome(welcome: Welcome): Uint8Array;
  /** An answer, an error, or news of the connection; undefined where the client is not told. */
  answer(message: object): Uint8Array | undefined;
  /** Events of a topic, under the name by which the client knows it. */
  messages(name: string): Encoding;
  readonly broadcasts: Encoding;
  /**
   * Where broadcasts go.
   * @param subscribed whether the connection has a subscription now
   */
  broadcastSink(sink: Sink, subscribed: () => boolean): Sink;
}

/** That of docs/protocols/courier.md. */
export const contract: Dialect = {
  read(data, isBinary) {
    if (isBinary) return new MalformedFrame('Frames are text', '');
    try {
      return parseClientFrame(data.toString('utf8'));
    } catch (error) {
      return asProblem(error);
    }
  },
  strikes: 20,
  refusesExcess: true,
  welcome: (welcome) => jsonFrame({ action: 'welcome', ...welcome }),
  answer: jsonFrame,
  messages: (name) => ({ key: name, encode: (event) => messageFrame(event, name) }),
  broadcasts: { key: '\u0000broadcast', encode: broadcastFrame },
  broadcastSink: (sink) => sink,
};
