/** The chat of one person: what has come in the order of the room, and below it what is still on its way. */
import { element, part, randomId, time } from './dom.js';

/** @typedef {import('./pane.js').Person} Person */
/** @typedef {{ from: string, text: string, at: string }} Line */

/** Pixels above the end at which somebody still follows. */
const NEAR = 48;

export class Chat {
  /** @type {HTMLElement} */
  #log;
  /** @type {HTMLElement} */
  #lines;
  #me;
  #people;
  #publish;
  /**
   * What was sent from here and has not come back.
   * @type {Map<string, HTMLElement>}
   */
  #sent = new Map();
  /**
   * Who tries again long after may have said it twice: it is the same event.
   * @type {Set<string>}
   */
  #shown = new Set();
  /** @type {{ from: number, to: number } | undefined} */
  #away;

  /**
   * @param {HTMLElement} root
   * @param {Person} me
   * @param {readonly Person[]} people
   * @param {(line: Line, id: string) => Promise<unknown>} publish
   */
  constructor(root, me, people, publish) {
    this.#me = me;
    this.#people = people;
    this.#publish = publish;
    this.#log = part(root, '[role=log]');
    this.#lines = part(this.#log, 'ol');
    // So that the keyboard scrolls it.
    this.#log.tabIndex = 0;
    this.#log.setAttribute('aria-label', `Chat, as ${me.name} sees it`);
    const form = /** @type {HTMLFormElement} */ (part(root, 'form'));
    const input = /** @type {HTMLInputElement} */ (part(form, 'input'));
    part(form, 'label span').textContent = `Message from ${me.name}`;
    input.placeholder = `Write as ${me.name}`;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (!text) return;
      input.value = '';
      this.#send({ from: me.id, text, at: new Date().toISOString() }, randomId());
    });
  }

  /**
   * The next message of the history.
   * @param {{ from?: unknown, text?: unknown, at?: unknown }} message
   * @param {string} id
   */
  add({ from, text, at }, id) {
    const person = this.#people.find((one) => one.id === from);
    if (!person || typeof text !== 'string' || this.#shown.has(id)) return;
    this.#shown.add(id);
    const sent = this.#sent.get(id);
    const row = this.#row(person, text, at);
    if (!sent && this.#wasAway(at)) row.querySelector('.meta')?.append(element('span', 'tag', 'caught up'));
    sent?.remove();
    this.#sent.delete(id);
    this.#put(row, this.#sent.values().next().value);
  }

  /**
   * A line across the chat, for what happened to the connection.
   * @param {string} text
   */
  note(text) {
    const row = element('li', 'note', element('span', '', text));
    this.#put(row, this.#sent.values().next().value);
  }

  /**
   * Marks what is from the time of a cut, once it comes.
   * @param {{ from: number, to: number } | undefined} away
   */
  set away(away) {
    this.#away = away;
  }

  /** @param {unknown} at */
  #wasAway(at) {
    const moment = typeof at === 'string' ? Date.parse(at) : Number.NaN;
    return this.#away !== undefined && moment >= this.#away.from && moment <= this.#away.to;
  }

  /**
   * @param {Line} line
   * @param {string} id kept for another try: whatever became of the first, it is shown once
   */
  #send(line, id) {
    const row = this.#row(this.#me, line.text, line.at);
    row.classList.add('sent');
    const state = element('span', 'tag', 'sending');
    part(row, '.meta').append(state);
    this.#sent.set(id, row);
    this.#put(row);
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#publish(line, id).catch((/** @type {Error} */ error) => {
      if (!this.#sent.has(id)) return;
      row.classList.add('failed');
      const again = element('button', 'quiet', 'Try again');
      again.type = 'button';
      again.addEventListener('click', () => {
        row.remove();
        this.#send(line, id);
      });
      state.replaceWith(element('span', 'tag', error.message), again);
    });
  }

  /**
   * @param {Person} person
   * @param {string} text
   * @param {unknown} at
   */
  #row(person, text, at) {
    const mine = person === this.#me;
    const meta = element('p', 'meta', mine ? 'You' : person.name);
    if (typeof at === 'string') meta.append(time(at));
    const row = element('li', `line ${person.id}`, meta, element('p', 'text', text));
    row.classList.toggle('mine', mine);
    return row;
  }

  /**
   * Follows the chat, unless somebody reads further up.
   * @param {HTMLElement} row
   * @param {HTMLElement} [before]
   */
  #put(row, before) {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    const follows = scrollHeight - scrollTop - clientHeight < NEAR;
    this.#lines.insertBefore(row, before ?? null);
    if (follows) this.#log.scrollTop = this.#log.scrollHeight;
  }
}
