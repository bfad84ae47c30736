/** What users of the SDK see: its options, and what handlers are given. */
import type { PosthornError } from './error.js';

/** What the SDK needs of a WebSocket: that of browsers and of Node 22, and `ws`. */
export interface WebSocketLike {
  // biome-ignore lint/suspicious/noExplicitAny: each implementation has event classes of its own
  onmessage: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onclose: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

/** What the SDK needs of `fetch`. Answers without a readable `body` leave out the fall-back to HTTP. */
export type Fetch = typeof globalThis.fetch;

export interface PosthornOptions {
  /** Where the gateway is: `https://events.example.com`, with a path if it has one. */
  readonly url: string;
  /**
   * Gives a JWT of the user: called before the first connection, ahead of a token's end, and when the server has
   * refused one. A call that fails, or takes over 15 s, is repeated.
   */
  readonly getToken: () => string | Promise<string>;
  /** Default: the global one. Node 20 has none: pass that of `ws`. */
  readonly WebSocket?: WebSocketConstructor | undefined;
  /** Default: the global one. */
  readonly fetch?: Fetch | undefined;
  /** Default `auto`: a WebSocket, or streaming over HTTP where the network lets no WebSocket through. */
  readonly transport?: 'auto' | 'websocket' | 'stream' | undefined;
  /** Milliseconds after which a publish that was not accepted is given up. Default, and most once it was sent: 90,000. */
  readonly publishTimeout?: number | undefined;
  /** Publishes that may wait, for the connection or their answer. Default 1,000. */
  readonly queueLimit?: number | undefined;
  /** Bytes of a frame that the gateway takes (its FRAME_LIMIT): a larger publish goes by HTTP. Default 65,536. */
  readonly frameLimit?: number | undefined;
}

/** What comes with a message. */
export interface EventInfo {
  /** The event's id: the publisher's, or the server's. */
  readonly id: string;
  /** Where the event stands: keep it to resume from (`since`). Undefined on an ephemeral topic. */
  readonly position: string | undefined;
  /** The topic: under a pattern, the one that the event came on. `__broadcast__` for a broadcast. */
  readonly topic: string;
}

// biome-ignore lint/suspicious/noExplicitAny: a handler may say what it expects
export type Handler<T = any> = (message: T, info: EventInfo) => unknown;

/** History that is lost: retention has dropped what came after the place that was to be resumed. */
export interface Gap {
  readonly topic: string;
  /** The place that the server was asked for. */
  readonly since: string;
  /** Where delivery goes on, from the oldest that is kept; undefined on an ephemeral topic. */
  readonly position: string | undefined;
}

export interface SubscribeOptions {
  /** A position that a message or a `ready` gave: what came after it comes first. */
  readonly since?: string | undefined;
  /** Called before the events that follow a gap. */
  readonly onGap?: ((gap: Gap) => void) | undefined;
  /** Called once if the server ends or refuses the subscription for good; nothing comes afterwards. */
  readonly onError?: ((error: PosthornError) => void) | undefined;
}

export interface Subscription {
  /** As it was given. */
  readonly topic: string;
  /**
   * Resolves when the server has begun it: whatever is published from then on comes. Its `position` is where it
   * begins. Rejects if the server refuses it, or it is ended before; left unheard, that harms nothing.
   */
  readonly ready: Promise<{ readonly position: string | undefined }>;
  /** Ends this handler's part: it is not called again. Later calls change nothing. */
  unsubscribe(): void;
}

export interface PublishOptions {
  /** The event's id, by which repeats are recognised. Default: a random one. */
  readonly id?: string | undefined;
  /**
   * Whether it is sent again where no answer came. Default true; false suits ephemeral topics (typing signs), on
   * which the server knows no repeats.
   */
  readonly repeat?: boolean | undefined;
}

/** An accepted publish. */
export interface Receipt {
  readonly id: string;
  /** Undefined on an ephemeral topic. */
  readonly position: string | undefined;
}

/** A room that a token names (docs/protocols/livestorm.md). */
export interface Room {
  readonly event_id: string;
  readonly session_id: string;
}

/** What the server said of the connection, at its beginning and whenever the token was renewed. */
export interface Welcome {
  readonly connection: string;
  readonly audience: string;
  /** When the token ends, ISO 8601; null for never. */
  readonly expires: string | null;
  readonly room: Room | undefined;
}

export type Transport = 'websocket' | 'stream';

export type ConnectionState =
  /** On the way: a token, a key, the connection itself. */
  | { readonly status: 'connecting' }
  | { readonly status: 'connected'; readonly transport: Transport; readonly connection: string }
  /** Between two tries. `retryIn`: milliseconds, from when this was told. */
  | { readonly status: 'waiting'; readonly retryIn: number; readonly error: PosthornError | undefined }
  /** The browser says that there is no network: tried less often until it says otherwise. */
  | { readonly status: 'offline' }
  | { readonly status: 'closed' };

/** The client's own events, and what their listeners get. */
export interface ClientEvents {
  state: ConnectionState;
  welcome: Welcome;
  /** Also told to the subscription's `onGap`. */
  gap: Gap;
  /** What nobody else is told: a failed connection, a handler that threw, a subscription that ended. */
  error: PosthornError;
}

export interface RequestOptions {
  /** Makes a call that is not idempotent by itself safe to repeat. */
  readonly idempotencyKey?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}
