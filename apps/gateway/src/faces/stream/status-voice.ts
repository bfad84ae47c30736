/** The names of the original status page, for its own client (docs/protocols/inthe-am.md, "Event stream"). */
import type { PayloadOf } from '@posthorn/contracts';
import type { FeedEvent } from '../../hub/feed.js';
import { eventLine, idLine, jsonBlock, textBlock } from './blocks.js';
import { StreamVoice, type Voice } from './voice.js';

/** Topics whose payloads go out as they are, and under which names. */
const AS_THEY_ARE: Readonly<Record<string, string>> = {
  personal: 'personal_announcement',
  __general__: 'public_announcement',
  incoming_mail: 'incoming_mail',
  incoming_trello_change: 'incoming_trello_change',
  local_sync: 'local_sync',
};

/** The topics of which the page is told. */
export const STATUS_TOPICS = [...Object.keys(AS_THEY_ARE), 'changed_task', 'log_message'];

/** What can be the head of a task store, and stand in an id. */
const HEAD = /^[\w-]{1,128}$/;

export class StatusVoice implements Voice {
  readonly #other = new StreamVoice();
  /** Of the task store, as the client knows it. */
  #head: string | undefined;

  constructor(head: string | undefined) {
    if (head !== undefined && HEAD.test(head)) this.#head = head;
  }

  event(event: FeedEvent, place: string | undefined, before: string): Uint8Array | undefined {
    const id = () => (place === undefined ? '' : idLine(this.id(place)));
    const name = event.topic.entry?.name ?? '';
    switch (name) {
      case 'changed_task': {
        const { task_id: task } = event.message as PayloadOf<'changed_task'>;
        return textBlock(id() + eventLine('task_changed'), task);
      }
      case 'log_message': {
        const { error, silent, message } = event.message as PayloadOf<'log_message'>;
        return error && !silent ? textBlock(id() + eventLine('error_logged'), message) : undefined;
      }
      case 'local_sync': {
        const { head } = event.message as PayloadOf<'local_sync'>;
        const changed = this.#changed(head, before);
        return Buffer.concat([changed, jsonBlock(id() + eventLine(name), event.bytes)]);
      }
    }
    const shown = AS_THEY_ARE[name];
    if (shown) return jsonBlock(id() + eventLine(shown), event.bytes);
    return this.#other.event(event, place && this.id(place));
  }

  heartbeat(place: string): Uint8Array {
    return textBlock(idLine(this.id(place)) + eventLine('heartbeat'), new Date().toISOString());
  }

  /** With the head: the page's URL says only what that was when it was opened. */
  id(place: string): string {
    return this.#head === undefined ? place : `${place}@${this.#head}`;
  }

  #changed(head: string, before: string): Uint8Array {
    if (head === this.#head) return Buffer.alloc(0);
    this.#head = HEAD.test(head) ? head : undefined;
    return textBlock(idLine(this.id(before)) + eventLine('head_changed'), head);
  }
}

/** What {@link StatusVoice.id} put together. */
export function splitId(id: string): { readonly place: string; readonly head: string | undefined } {
  const [place = '', head] = id.split('@', 2);
  return { place, head };
}
