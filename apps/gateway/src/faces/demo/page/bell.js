/** The bell of one person: what the inbox says, and a list to read it in. */
import { element, part, time } from './dom.js';

/** @typedef {import('./pane.js').Person} Person */
/** @typedef {import('@posthorn/client').Posthorn} Posthorn */
/** @typedef {Posthorn['inbox']['items'][number]} UserNotification */

export class Bell {
  #inbox;
  #people;
  #button;
  #panel;
  #list;
  #me;

  /**
   * @param {HTMLElement} root
   * @param {Person} me
   * @param {readonly Person[]} people
   * @param {Posthorn['inbox']} inbox
   */
  constructor(root, me, people, inbox) {
    this.#inbox = inbox;
    this.#people = people;
    this.#me = me;
    this.#button = part(root, '.bell');
    this.#panel = part(root, '.inbox');
    this.#list = part(this.#panel, 'ol');
    this.#panel.id = `inbox-${me.id}`;
    this.#panel.setAttribute('aria-label', `Notifications of ${me.name}`);
    this.#button.setAttribute('aria-controls', this.#panel.id);
    this.#button.addEventListener('click', () => this.#open(this.#panel.hidden === true));
    part(this.#panel, '.all').addEventListener('click', () => void this.#mark('all'));
    root.addEventListener('keydown', ({ key }) => {
      if (key !== 'Escape' || this.#panel.hidden) return;
      this.#open(false);
      this.#button.focus();
    });
    document.addEventListener('pointerdown', ({ target }) => {
      const inside =
        target instanceof Node && (this.#panel.contains(target) || this.#button.contains(target));
      if (!inside) this.#open(false);
    });
    inbox.on('change', ({ change, notification }) => {
      this.#show();
      if (change === 'created' && notification)
        part(root, '.rung').textContent = this.#told(notification).join('');
    });
    this.#show();
  }

  /** @param {boolean} open */
  #open(open) {
    this.#panel.hidden = !open;
    this.#button.setAttribute('aria-expanded', String(open));
    if (open) this.#panel.focus();
  }

  /** @param {string[] | 'all'} which */
  async #mark(which) {
    // Without a network it stays as it is, which is what the list shows.
    await this.#inbox.markRead(which).catch(() => {});
  }

  #show() {
    const unread = this.#inbox.unreadCount ?? 0;
    const count = part(this.#button, '.count');
    count.hidden = unread === 0;
    count.textContent = unread > 99 ? '99+' : String(unread);
    part(this.#button, '.label').textContent = `Notifications of ${this.#me.name}: ${unread} unread`;
    part(this.#panel, '.all').toggleAttribute('disabled', unread === 0);
    const items = this.#inbox.items;
    part(this.#panel, '.empty').hidden = items.length > 0;
    this.#list.replaceChildren(...items.map((item) => this.#row(item)));
  }

  /**
   * Who has done what, and where.
   * @param {UserNotification} item
   */
  #told({ subject, verb, complement }) {
    const author = this.#people.find((person) => subject.id.startsWith(`${person.id}.`));
    return [author?.name ?? subject.id, ` ${verb.text} `, complement.id];
  }

  /** @param {UserNotification} item */
  #row(item) {
    const { id, read, timestamps } = item;
    const [author = '', verb = '', place = ''] = this.#told(item);
    const text = element('p', 'text', author, verb, element('b', '', place));
    const row = element('li', read ? '' : 'unread', text, element('p', 'meta', time(timestamps.creation)));
    if (read) return row;
    const mark = element('button', 'quiet', 'Mark read');
    mark.type = 'button';
    mark.addEventListener('click', () => {
      // The row is about to be made anew: the focus stays in the list.
      this.#panel.focus();
      void this.#mark([id]);
    });
    row.append(mark);
    return row;
  }
}
