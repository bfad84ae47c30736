/**
 * The room that the page's address names: `#room=<32 hexadecimal digits>&since=<position>`. Nobody meets by accident,
 * since its id is random; whoever has the address has the room, and its history from where it began.
 */
import { randomId } from './dom.js';

export class Room {
  /** @type {string} */
  id;
  /**
   * Where the room's events begin; undefined until a subscription has said so.
   * @type {string | undefined}
   */
  since;

  constructor() {
    const named = new URLSearchParams(location.hash.slice(1));
    const id = named.get('room') ?? '';
    const known = /^[0-9a-f]{32}$/.test(id);
    this.id = known ? id : randomId();
    this.since = (known && named.get('since')) || undefined;
    this.#write();
    addEventListener('hashchange', () => location.reload());
  }

  /** @param {string} position */
  begin(position) {
    this.since = position;
    this.#write();
  }

  /**
   * The topic of a kind of event in this room.
   * @param {string} event
   */
  topic(event) {
    return `room/session/${this.id}/${event}`;
  }

  #write() {
    const named = new URLSearchParams({ room: this.id, ...(this.since && { since: this.since }) });
    history.replaceState(null, '', `#${named}`);
  }
}
