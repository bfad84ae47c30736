/** Rooms (docs/protocols/livestorm.md, "Browser API"): events by name, in the room that the user's token names. */
import { closed, PosthornError, unheard } from './error.js';
import { Posthorn } from './posthorn.js';
import type { PosthornOptions, Receipt, Room, Subscription } from './types.js';

export type RoomScope = 'session' | 'event' | 'organization';

export interface RoomPublish {
  /** What subscribers are given. */
  readonly data: object;
  /** Whom it reaches. Default: the own session; the others need a permission. */
  readonly scope?: RoomScope | undefined;
}

// biome-ignore lint/suspicious/noExplicitAny: a handler may say what it expects
export type RoomHandler<T = any> = (message: T) => unknown;

interface RoomSubscription {
  readonly eventName: string;
  readonly handler: RoomHandler;
  /** In the present room. */
  parts: Subscription[];
}

/** Works before it is connected: calls wait, in their order, until the server has said which room it is. */
export class Rooms {
  #client: Posthorn | undefined;
  #room: Room | undefined;
  readonly #subscriptions = new Set<RoomSubscription>();
  #waiting: { readonly publish: (room: Room) => void; readonly refuse: (error: PosthornError) => void }[] =
    [];

  /**
   * Connects; a connection that was there is closed.
   * @returns the client, for whatever is not about rooms
   */
  connect(options: PosthornOptions): Posthorn {
    const client = new Posthorn(options);
    this.#client?.close();
    this.#client = client;
    this.#room = undefined;
    client.on('welcome', ({ room }) => {
      if (this.#client === client) this.#enter(room);
    });
    return client;
  }

  /** Resolves once the event is stored. */
  publish(eventName: string, { data, scope = 'session' }: RoomPublish): Promise<Receipt> {
    const receipt = new Promise<Receipt>((resolve, refuse) => {
      const publish = (room: Room) =>
        resolve((this.#client as Posthorn).publish(topicOf(room, scope, eventName), data));
      if (this.#room) return publish(this.#room);
      if (this.#client?.welcome) return refuse(noRoom());
      this.#waiting.push({ publish, refuse });
    });
    return unheard(receipt);
  }

  /**
   * Hears an event name in the session, the event and the organization.
   * @returns ends it
   */
  subscribe<T>(eventName: string, handler: RoomHandler<T>): () => void {
    const subscription: RoomSubscription = { eventName, handler, parts: [] };
    this.#subscriptions.add(subscription);
    if (this.#room) this.#begin(subscription, this.#room);
    return () => {
      this.#subscriptions.delete(subscription);
      for (const part of subscription.parts.splice(0)) part.unsubscribe();
    };
  }

  /** Ends the connection. What waits is refused, and subscriptions are forgotten. */
  close(): void {
    this.#client?.close();
    this.#client = undefined;
    this.#room = undefined;
    this.#subscriptions.clear();
    this.#refuseAll(closed());
  }

  #enter(room: Room | undefined): void {
    const before = this.#room;
    if (!room) {
      this.#refuseAll(noRoom());
      // A subscription has no answer to say it in: the client's `error` tells it, or the console.
      if (this.#subscriptions.size) throw noRoom();
      return;
    }
    const same = before?.event_id === room.event_id && before.session_id === room.session_id;
    this.#room = room;
    if (!same) {
      for (const subscription of this.#subscriptions) {
        for (const part of subscription.parts.splice(0)) part.unsubscribe();
        this.#begin(subscription, room);
      }
    }
    for (const { publish } of this.#waiting.splice(0)) publish(room);
  }

  #begin(subscription: RoomSubscription, room: Room): void {
    const { eventName, handler } = subscription;
    const client = this.#client as Posthorn;
    subscription.parts = SCOPES.map((scope) =>
      client.subscribe(topicOf(room, scope, eventName), (message) => handler(message)),
    );
  }

  #refuseAll(error: PosthornError): void {
    for (const { refuse } of this.#waiting.splice(0)) refuse(error);
  }
}

const noRoom = () => new PosthornError('no_room', 'No room');

const SCOPES: readonly RoomScope[] = ['session', 'event', 'organization'];

function topicOf({ event_id, session_id }: Room, scope: RoomScope, eventName: string): string {
  if (scope === 'session') return `room/session/${session_id}/${eventName}`;
  return scope === 'event' ? `room/event/${event_id}/${eventName}` : `room/organization/${eventName}`;
}

/** The page's room. */
export const PubSub: Rooms = new Rooms();
