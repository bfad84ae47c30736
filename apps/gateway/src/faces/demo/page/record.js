/** The tape of the room's events: a column for each, and in it a cell for each person that has it. */
import { element, part } from './dom.js';

/** Columns that are kept; the narrowest page shows fewer. */
const SHOWN = 120;

/** @typedef {import('./pane.js').Person} Person */

export class Record {
  #tape = part(document, '#tape');
  #tally = part(document, '#tally');
  #people;
  /** @type {Map<string, { column: HTMLElement, has: Set<string> }>} */
  #events = new Map();

  /** @param {readonly Person[]} people */
  constructor(people) {
    this.#people = people;
    this.#tell();
  }

  /**
   * @param {string} id of the event
   * @param {'chat' | 'vote'} kind
   * @param {Person} person who has got it
   */
  add(id, kind, person) {
    let event = this.#events.get(id);
    if (!event) {
      event = { column: element('span', `event of-${kind}`), has: new Set() };
      for (const { id: cell } of this.#people) event.column.append(element('i', cell));
      this.#events.set(id, event);
      this.#tape.append(event.column);
      if (this.#tape.children.length > SHOWN) this.#tape.firstElementChild?.remove();
    }
    event.has.add(person.id);
    part(event.column, `.${person.id}`).classList.add('has');
    this.#tell();
  }

  #tell() {
    const events = [...this.#events.values()];
    const counts = this.#people.map((person) => ({
      ...person,
      count: events.filter(({ has }) => has.has(person.id)).length,
    }));
    this.#tape.setAttribute(
      'aria-label',
      counts.map(({ name, count }) => `${name} has ${count} of ${events.length}`).join(', '),
    );
    this.#tally.replaceChildren(
      ...counts.map(({ id, name, count }) => element('span', id, `${name} ${count}/${events.length}`)),
    );
  }
}
