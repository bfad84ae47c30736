/** How a stream tells its client what happens: one voice for `/v1/stream`, one for `/status`. */
import { BROADCAST, parseTopic } from '@posthorn/contracts';
import type { FeedEvent } from '../../hub/feed.js';
import { BLOCK_END, COMMENT, eventLine, idLine, jsonBlock } from './blocks.js';

export interface Voice {
  /**
   * What an event looks like; undefined where its client does not hear of it.
   * @param place what the client has with it, as a cursor's text; undefined where it is stored nowhere
   * @param before what it had until now
   */
  event(event: FeedEvent, place: string | undefined, before: string): Uint8Array | undefined;
  /** A sign of life that says where the client stands. */
  heartbeat(place: string): Uint8Array;
  /** A cursor as the stream's `id:`. */
  id(place: string): string;
}

export const BROADCAST_PATH = parseTopic(BROADCAST).path;
/** Names of events that mean something else to a client: no topic begins with a slash. */
const TAKEN = new Set(['broadcast', 'recovered', 'error', 'open']);

/** That of `GET /v1/stream`. */
export class StreamVoice implements Voice {
  readonly #names: ReadonlyMap<string, string>;

  /** @param names topics by path, as the client asked for them */
  constructor(names: ReadonlyMap<string, string> = new Map()) {
    this.#names = names;
  }

  event(event: FeedEvent, place: string | undefined): Uint8Array {
    return jsonBlock(idLine(place) + eventLine(this.#nameOf(event)), event.bytes);
  }

  heartbeat(place: string): Uint8Array {
    return Buffer.from(COMMENT + idLine(place) + BLOCK_END);
  }

  id(place: string): string {
    return place;
  }

  #nameOf({ path, topic }: FeedEvent): string {
    if (path === BROADCAST_PATH) return 'broadcast';
    const name = topic.entry?.parameter ? topic.entry.name : (this.#names.get(path) ?? topic.name);
    return TAKEN.has(name) ? `/${name}` : name;
  }
}
