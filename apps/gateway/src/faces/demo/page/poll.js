/** A poll that is nothing but its events: the last vote of each person counts, wherever the history is read. */
import { element, part } from './dom.js';

/** @typedef {import('./pane.js').Person} Person */

const OPTIONS = [
  { id: 'lisbon', name: 'Lisbon' },
  { id: 'kyoto', name: 'Kyoto' },
  { id: 'reykjavik', name: 'Reykjavík' },
];

export class Poll {
  #people;
  /** @type {Map<string, string>} */
  #votes = new Map();
  /** @type {Map<string, { button: HTMLButtonElement, bar: HTMLElement, voters: HTMLElement, count: HTMLElement }>} */
  #rows = new Map();
  #me;

  /**
   * @param {HTMLElement} root
   * @param {Person} me
   * @param {readonly Person[]} people
   * @param {(option: string) => void} vote
   */
  constructor(root, me, people, vote) {
    this.#me = me;
    this.#people = people;
    const list = part(root, 'ul');
    for (const { id, name } of OPTIONS) {
      const bar = element('span', 'bar');
      const voters = element('span', 'voters');
      const count = element('span', 'votes');
      const button = element('button', 'option', bar, element('span', 'choice', name), voters, count);
      button.type = 'button';
      button.dataset.option = id;
      button.addEventListener('click', () => {
        button.classList.add('asked');
        vote(id);
      });
      list.append(element('li', '', button));
      this.#rows.set(id, { button, bar, voters, count });
    }
    this.#show();
  }

  /**
   * The next vote of the history.
   * @param {{ from?: unknown, option?: unknown }} vote
   */
  add({ from, option }) {
    const person = this.#people.find(({ id }) => id === from);
    const chosen = OPTIONS.find(({ id }) => id === option);
    if (!person || !chosen) return;
    this.#votes.set(person.id, chosen.id);
    if (person === this.#me) this.settle();
    this.#show();
  }

  /** What was asked for has come, or will not. */
  settle() {
    for (const { button } of this.#rows.values()) button.classList.remove('asked');
  }

  #show() {
    for (const [id, { button, bar, voters, count }] of this.#rows) {
      const who = this.#people.filter((person) => this.#votes.get(person.id) === id);
      bar.style.inlineSize = `${(100 * who.length) / this.#people.length}%`;
      voters.replaceChildren(
        ...who.map((person) => {
          const chip = element('span', `voter ${person.id}`, person.name.slice(0, 1));
          chip.title = person.name;
          return chip;
        }),
      );
      count.textContent = who.length === 1 ? '1 vote' : `${who.length} votes`;
      button.setAttribute('aria-pressed', String(this.#votes.get(this.#me.id) === id));
    }
  }
}
