/** One person's side: a connection of its own to the room, and what comes by it. */
import { Bell } from './bell.js';
import { Chat } from './chat.js';
import { element, part, randomId, time } from './dom.js';
import { Line } from './line.js';
import { Poll } from './poll.js';

/** @typedef {{ id: string, name: string }} Person */
/** @typedef {import('@posthorn/client').ConnectionState} ConnectionState */
/** @typedef {import('@posthorn/client').EventInfo} EventInfo */
/** @typedef {import('@posthorn/client').PosthornError} PosthornError */

/** The script tag's global. */
const { Posthorn } = /** @type {typeof import('@posthorn/client')} */ (/** @type {unknown} */ (globalThis));

const base = new URL('.', location.href);

export class Pane {
  #line = new Line();
  #posthorn;
  #room;
  #me;
  #root;
  #chat;
  #poll;
  #record;
  /** @type {Set<string | null>} */
  #tokens = new Set();
  #cutAt = 0;

  /**
   * @param {object} options
   * @param {Person} options.me
   * @param {readonly Person[]} options.people
   * @param {import('./room.js').Room} options.room
   * @param {import('./record.js').Record} options.record
   */
  constructor({ me, people, room, record }) {
    this.#me = me;
    this.#room = room;
    this.#record = record;
    const template = /** @type {HTMLTemplateElement} */ (part(document, '#pane'));
    const content = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.#root = part(content, '.pane');
    part(document, '#panes').append(content);
    this.#name();
    this.#posthorn = new Posthorn({
      url: base.href,
      getToken: () => this.#token(),
      WebSocket: this.#line.WebSocket,
      fetch: this.#line.fetch,
    });
    this.#chat = new Chat(part(this.#root, '.chat'), me, people, (message, id) =>
      this.#publish('chat', message, id),
    );
    this.#poll = new Poll(part(this.#root, '.poll'), me, people, (option) => {
      this.#publish('vote', { from: me.id, option }, randomId()).catch(() => this.#poll.settle());
    });
    new Bell(this.#root, me, people, this.#posthorn.inbox);
    this.#watch();
    this.#invite(people.find((person) => person !== me) ?? me);
    part(this.#root, '.cut').addEventListener('click', () =>
      this.#line.isCut ? this.#restore() : this.#cut(),
    );
  }

  /**
   * Follows the room from a position, or from now on.
   * @param {string} [since]
   * @returns {Promise<string | undefined>} where this begins; undefined where that cannot be
   */
  async follow(since) {
    const onGap = () => this.#chat.note('What came before is not kept any more');
    try {
      const chat = this.#subscribe('chat', (message, id) => this.#chat.add(message, id), { since, onGap });
      const votes = this.#subscribe('vote', (message) => this.#poll.add(message), { since });
      const [{ position }] = await Promise.all([chat.ready, votes.ready]);
      return position;
    } catch (error) {
      this.#chat.note(`Not followed: ${/** @type {Error} */ (error).message}`);
      return undefined;
    }
  }

  /**
   * @param {'chat' | 'vote'} event
   * @param {(message: object, id: string) => void} add
   * @param {import('@posthorn/client').SubscribeOptions} options
   */
  #subscribe(event, add, options) {
    const got = (/** @type {object} */ message, /** @type {EventInfo} */ { id, position }) => {
      add(message, id);
      this.#record.add(id, event, this.#me);
      part(this.#root, '.position').textContent = position ?? '–';
    };
    return this.#posthorn.subscribe(this.#room.topic(event), got, options);
  }

  #name() {
    const { id, name } = this.#me;
    this.#root.classList.add(id);
    const title = part(this.#root, '.name h2');
    title.id = `name-${id}`;
    title.textContent = name;
    part(this.#root, '.avatar').textContent = name.slice(0, 1);
    this.#root.setAttribute('aria-labelledby', title.id);
    part(this.#root, '.cut').setAttribute('aria-describedby', title.id);
  }

  #watch() {
    this.#posthorn.on('state', (state) => this.#show(state));
    this.#posthorn.on('welcome', ({ expires }) => {
      // A connection that comes back may have the token that it had.
      this.#tokens.add(expires);
      const until = expires === null ? 'no end' : time(expires);
      const renewed = this.#tokens.size - 1;
      part(this.#root, '.token').replaceChildren(
        until,
        ...(renewed > 0 ? [element('span', 'renewed', `renewed ${renewed}×`)] : []),
      );
    });
    this.#show(this.#posthorn.state);
  }

  /** @param {ConnectionState} state */
  #show(state) {
    const shown = part(this.#root, '.state');
    shown.dataset.state = this.#line.isCut ? 'cut' : state.status;
    shown.textContent = this.#line.isCut ? 'Network cut' : told(state);
    shown.title = ('error' in state && state.error?.message) || '';
  }

  #cut() {
    this.#cutAt = Date.now();
    this.#line.cut();
    this.#chat.away = undefined;
    this.#chat.note('Network cut');
    this.#switched('Restore it');
  }

  #restore() {
    this.#chat.away = { from: this.#cutAt, to: Date.now() };
    this.#line.restore();
    this.#chat.note('Network restored');
    this.#switched('Cut the network');
  }

  /** @param {string} next */
  #switched(next) {
    this.#root.classList.toggle('is-cut', this.#line.isCut);
    part(this.#root, '.cut').textContent = next;
    this.#show(this.#posthorn.state);
  }

  /**
   * @param {'chat' | 'vote'} event
   * @param {object} message
   * @param {string} id
   */
  #publish(event, message, id) {
    return this.#posthorn.publish(this.#room.topic(event), message, { id });
  }

  /** @param {Person} other */
  #invite(other) {
    const button = /** @type {HTMLButtonElement} */ (part(this.#root, '.invite'));
    button.textContent = `Invite ${other.name} to the reading club`;
    button.addEventListener('click', async () => {
      button.disabled = true;
      try {
        await this.#posthorn.request('POST', '/demo/invitations', undefined, { idempotencyKey: randomId() });
      } catch (error) {
        this.#chat.note(`The invitation was not sent: ${/** @type {PosthornError} */ (error).message}`);
      }
      button.disabled = false;
    });
  }

  /** As a page asks its own team's server. */
  async #token() {
    const answer = await this.#line.fetch(new URL('demo/token', base), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ user: this.#me.id, room: this.#room.id }),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail);
    return body.token;
  }
}

/** @param {ConnectionState} state */
function told(state) {
  switch (state.status) {
    case 'connected':
      return state.transport === 'websocket' ? 'Connected' : 'Connected, over HTTP';
    case 'waiting':
      return `No connection, next try in ${Math.max(1, Math.round(state.retryIn / 1000))} s`;
    case 'offline':
      return 'Offline';
    case 'closed':
      return 'Closed';
    default:
      return 'Connecting';
  }
}
