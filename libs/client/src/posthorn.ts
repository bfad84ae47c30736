/** The client: what is called, and what the machine wants done. */
import { closed, isPassing, PosthornError, unheard } from './error.js';
import type { ServerFrame } from './frame.js';
import { type Call, Http } from './http.js';
import { Inbox } from './inbox.js';
import type { Effect } from './machine/effect.js';
import type { Draft, Event } from './machine/event.js';
import { actionOf } from './machine/publishes.js';
import { newState, type State } from './machine/state.js';
import { transition } from './machine/transition.js';
import { wakeAt } from './machine/wake.js';
import { placeOf } from './place.js';
import { newClock, randomId, randomWords, surroundings, watchPage } from './platform.js';
import { Tokens } from './tokens.js';
import { BROADCAST, topicName } from './topic.js';
import { type Connection, openSocket, openStream, type Peer } from './transport.js';
import type {
  ClientEvents,
  ConnectionState,
  Handler,
  PosthornOptions,
  PublishOptions,
  Receipt,
  RequestOptions,
  SubscribeOptions,
  Subscription,
  Transport,
  WebSocketConstructor,
  Welcome,
} from './types.js';

/** The longest wait that a timer knows. */
const LONGEST_WAIT = 2 ** 31 - 1;
/** What stands around a message in a frame, at most, beside topic and id. */
const FRAME = 80;
/** Tries of a call that may be repeated, and the longest wait between them in milliseconds. */
const TRIES = 4;
const LONGEST_PAUSE = 30_000;

interface Listener {
  readonly topic: string;
  readonly handler: Handler;
  readonly options: SubscribeOptions;
  readonly begun: (start: { position: string | undefined }) => void;
  readonly refused: (error: PosthornError) => void;
}

/** Without its time. */
type Untimed<E> = E extends unknown ? Omit<E, 'time'> : never;

interface Waiting {
  readonly accepted: (receipt: Receipt) => void;
  readonly rejected: (error: PosthornError) => void;
}

/**
 * A connection to Posthorn for one user: subscribes and publishes, comes back by itself, and goes on where it was.
 *
 * ```ts
 * const posthorn = new Posthorn({ url: 'https://events.example.com', getToken });
 * posthorn.subscribe('chat/lobby', (message, { id, position, topic }) => show(message));
 * await posthorn.publish('chat/lobby', { text: 'hello' });
 * ```
 */
export class Posthorn {
  readonly #http: Http;
  readonly #tokens: Tokens;
  readonly #Socket: WebSocketConstructor | undefined;
  readonly #machine: State;
  readonly #now: () => number;
  readonly #queue: Event[] = [];
  readonly #connections = new Map<number, Connection>();
  readonly #listeners = new Map<number, Listener>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #on: { readonly [Name in keyof ClientEvents]: Set<(event: ClientEvents[Name]) => void> } = {
    state: new Set(),
    welcome: new Set(),
    gap: new Set(),
    error: new Set(),
  };
  readonly #hangUp = new AbortController();
  readonly #unwatch: () => void;
  #count = 0;
  #busy = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #state: ConnectionState = { status: 'connecting' };
  #welcome: Welcome | undefined;
  #inbox: Inbox | undefined;

  /**
   * Connects at once, in the background: everything can be called right away.
   * @throws PosthornError `request_invalid` for options that cannot work
   */
  constructor(options: PosthornOptions) {
    const {
      url,
      getToken,
      transport = 'auto',
      publishTimeout = 90_000,
      queueLimit = 1_000,
      frameLimit = 65_536,
    } = options;
    const { WebSocket: Socket = surroundings.WebSocket, fetch = surroundings.fetch } = options;
    if (!/^(http|ws)s?:\/\//.test(url)) throw invalid('url must begin with http:// or https://');
    if (typeof getToken !== 'function') throw invalid('getToken must be a function');
    if (!fetch) throw invalid('fetch is missing');
    const transports: Transport[] = [];
    if (transport !== 'stream' && Socket) transports.push('websocket');
    if (transport !== 'websocket') transports.push('stream');
    if (transports.length === 0) throw invalid('WebSocket is missing');
    this.#now = newClock();
    this.#http = new Http(url, fetch);
    this.#tokens = new Tokens(getToken);
    this.#Socket = Socket;
    this.#machine = newState({
      seed: randomWords(1)[0] as number,
      transports,
      publishTimeout,
      queueLimit,
      frameLimit,
    });
    this.#unwatch = watchPage(
      (online) => this.#happened({ type: 'network', online }),
      (visible) => this.#happened({ type: 'page', visible }),
    );
    this.#happened({ type: 'start' });
  }

  /** How the connection is now. */
  get state(): ConnectionState {
    return this.#state;
  }

  /** What the server said of the connection last; undefined before the first. */
  get welcome(): Welcome | undefined {
    return this.#welcome;
  }

  /** The user's notifications. The first use subscribes to what changes them. */
  get inbox(): Inbox {
    this.#inbox ??= new Inbox(this, (call) => this.#guard(call));
    return this.#inbox;
  }

  /**
   * Hears a topic, or all that a pattern takes (`chat/*`, `sync.>`). Each event comes once, in the order of its topic,
   * across whatever happens to the connection; what cannot be had any more is told to `onGap`. Handlers of one topic
   * share one subscription of the server.
   * @throws PosthornError `request_invalid` for a `since` that is no position
   */
  subscribe<T>(topic: string, handler: Handler<T>, options: SubscribeOptions = {}): Subscription {
    const { since } = options;
    if (typeof topic !== 'string' || topic === '') throw invalid('topic must be a text');
    if (since !== undefined && !placeOf(since)) throw invalid('since must be a position');
    const listener = ++this.#count;
    const ready = new Promise<{ position: string | undefined }>((begun, refused) => {
      this.#listeners.set(listener, { topic, handler, options, begun, refused });
    });
    this.#happened({ type: 'subscribe', topic, listener, since });
    return { topic, ready: unheard(ready), unsubscribe: () => this.#leave(listener) };
  }

  /** Ends this handler's subscriptions of a topic, or without a handler all of the topic's. */
  unsubscribe(topic: string, handler?: Handler): void {
    const { key } = topicName(topic);
    for (const [listener, each] of this.#listeners) {
      if (topicName(each.topic).key === key && (!handler || each.handler === handler)) this.#leave(listener);
    }
  }

  /**
   * Resolves once the event is stored (on an ephemeral topic: sent). Until then it waits, and is sent again after an
   * interruption, under one id by which it is stored once.
   */
  publish(topic: string, message: object, options?: PublishOptions): Promise<Receipt> {
    return this.#publish(topic, message, options);
  }

  /** As {@link publish}, to everybody of the audience. */
  broadcast(message: object, options?: PublishOptions): Promise<Receipt> {
    return this.#publish(undefined, message, options);
  }

  /** As {@link subscribe}: broadcasts, those that were missed during an interruption among them. */
  onBroadcast<T>(handler: Handler<T>, options?: SubscribeOptions): Subscription {
    return this.subscribe(BROADCAST, handler, options);
  }

  /** Listens to the client's own events. Returns what ends it. */
  on<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): () => void {
    const listeners = this.#on[name];
    // One function may listen twice, and ends each by itself.
    const one = (event: ClientEvents[Name]) => listener(event);
    listeners.add(one);
    return () => void listeners.delete(one);
  }

  /**
   * A call to the gateway as this user: `request('GET', '/v1/topic')`. A token that ended is replaced. What passes
   * (no network, `unavailable`, `rate_limited`) is tried up to four times where the call may be repeated: anything but
   * a POST, and a POST with an `idempotencyKey`.
   * @returns the answer's body; undefined where it has none
   * @throws PosthornError
   */
  // biome-ignore lint/suspicious/noExplicitAny: the caller knows what the call answers
  async request<T = any>(
    method: string,
    path: string,
    body?: unknown,
    options: RequestOptions = {},
  ): Promise<T> {
    const { idempotencyKey, signal } = options;
    const headers = idempotencyKey === undefined ? undefined : { 'Idempotency-Key': idempotencyKey };
    const tries = method === 'POST' && !headers ? 1 : TRIES;
    for (let i = 1; ; i++) {
      try {
        return (await this.#call({ method, path, body, headers }, signal)).body as T;
      } catch (error) {
        if (this.#hangUp.signal.aborted) throw closed();
        const { retryAfter = 0 } = error as PosthornError;
        if (i >= tries || !isPassing(error) || retryAfter > LONGEST_PAUSE) throw error;
        await this.#pause(Math.max(retryAfter, Math.random() * 1_000 * 2 ** i), signal);
      }
    }
  }

  /** Ends the connection, and everything that waits for it with the error `closed`. Later calls change nothing. */
  close(): void {
    this.#unwatch();
    this.#happened({ type: 'close' });
    this.#hangUp.abort();
  }

  #publish(topic: string | undefined, message: object, options: PublishOptions = {}): Promise<Receipt> {
    const { id = randomId(), repeat = true } = options;
    const receipt = new Promise<Receipt>((accepted, rejected) => {
      const text = JSON.stringify(message);
      if (typeof message !== 'object' || !text?.startsWith('{')) throw invalid('message must be an object');
      const ref = String(++this.#count);
      this.#waiting.set(ref, { accepted, rejected });
      const bytes = new TextEncoder().encode(text + topic + id).length + FRAME;
      this.#happened({ type: 'publish', publish: { ref, topic, id, text, bytes, repeat } });
    });
    return unheard(receipt);
  }

  #leave(listener: number): void {
    const each = this.#listeners.get(listener);
    if (!each) return;
    this.#listeners.delete(listener);
    each.refused(new PosthornError('closed', 'Unsubscribed'));
    this.#happened({ type: 'unsubscribe', listener });
  }

  /** Takes one event after the other: what a handler calls comes after what is told now. */
  #happened(event: Untimed<Event>): void {
    this.#queue.push({ ...event, time: this.#now() });
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
        for (const effect of transition(this.#machine, next)) this.#perform(effect);
      }
    } finally {
      // A frame that is none of Posthorn's ends its connection at most, not the client.
      this.#busy = false;
      this.#schedule();
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const now = this.#now();
    const wait = wakeAt(this.#machine, now) - now;
    if (wait === Infinity) return;
    const tick = () => this.#happened({ type: 'tick' });
    this.#timer = setTimeout(tick, Math.min(LONGEST_WAIT, Math.max(0, wait)));
  }

  #perform(effect: Effect) {
    switch (effect.do) {
      case 'token':
        return this.#tell(effect.n, this.#tokens.get(effect.not), (token) => ({ type: 'token', token }));
      case 'sign':
        return this.#sign(effect.n, effect.token);
      case 'socket':
        return this.#connect(effect.n, (peer) =>
          openSocket(this.#Socket as WebSocketConstructor, this.#http.socketUrl, effect.key, peer),
        );
      case 'stream':
        return this.#connect(effect.n, (peer) =>
          openStream(this.#http, effect.token, effect.subscriptions, peer),
        );
      case 'send':
        return this.#connections.get(effect.n)?.send(effect.text);
      case 'drop':
        this.#connections.get(effect.n)?.drop();
        this.#connections.delete(effect.n);
        return;
      case 'post':
        return this.#post(effect.publish);
      case 'deliver':
        return this.#each(effect.listeners, ({ handler }) => handler(effect.message, effect.info));
      case 'ready':
        return this.#each(effect.listeners, ({ begun }) => begun({ position: effect.position }));
      case 'gap':
        this.#each(effect.listeners, ({ options }) => options.onGap?.(effect.gap));
        return this.#emit('gap', effect.gap);
      case 'ended':
        return this.#ended(effect.listeners, effect.error);
      case 'accepted':
        return this.#over(effect.ref)?.accepted(effect.receipt);
      case 'rejected':
        return this.#over(effect.ref)?.rejected(effect.error);
      case 'welcome':
        this.#welcome = effect.welcome;
        return this.#emit('welcome', effect.welcome);
      case 'state':
        this.#state = effect.state;
        return this.#emit('state', effect.state);
      case 'error':
        return this.#emit('error', effect.error);
    }
  }

  #over(ref: string): Waiting | undefined {
    const waiting = this.#waiting.get(ref);
    this.#waiting.delete(ref);
    return waiting;
  }

  #sign(n: number, token: string): void {
    const call = { method: 'GET', path: '/v1/sign', token };
    const key = this.#http.call(call, this.#hangUp.signal).then(({ body }) => {
      const { key } = (body ?? {}) as { key?: unknown };
      if (typeof key !== 'string') throw new PosthornError('protocol', 'No key');
      return key;
    });
    this.#tell(n, key, (key) => ({ type: 'key', key }));
  }

  /** Tells the machine how something ends that it asked for. */
  #tell<T>(
    n: number,
    result: Promise<T>,
    as: (value: T) => { type: 'token'; token: string } | { type: 'key'; key: string },
  ): void {
    result.then(
      (value) => this.#happened({ ...as(value), n }),
      (error) => this.#happened({ type: 'failed', n, error: errorOf(error) }),
    );
  }

  #connect(n: number, open: (peer: Peer) => Connection): void {
    const over = () => this.#connections.delete(n);
    const peer: Peer = {
      frame: (frame) => this.#happened({ type: 'frame', n, frame, expiresIn: expiresIn(frame) }),
      gone: (code) => {
        over();
        this.#happened({ type: 'gone', n, code });
      },
      failed: (error) => {
        over();
        this.#happened({ type: 'failed', n, error: errorOf(error) });
        this.#happened({ type: 'gone', n, code: 0 });
      },
    };
    try {
      this.#connections.set(n, open(peer));
    } catch (error) {
      peer.failed(error);
    }
  }

  #post({ ref, topic, id, text }: Draft): void {
    const json = `{${actionOf(topic)},"message":${text}}`;
    // A header's characters are fewer than an id's.
    const headers = { 'Idempotency-Key': id };
    this.#call({ method: 'POST', path: '/v1/hook', json, headers })
      .then(({ headers }) => {
        const given = headers.get('posthorn-event-id');
        const receipt: Receipt = {
          id: given === null ? id : decodeURIComponent(given),
          position: headers.get('posthorn-position') ?? undefined,
        };
        this.#happened({ type: 'posted', ref, receipt });
      })
      .catch((error) => this.#happened({ type: 'refused', ref, error: errorOf(error) }));
  }

  /** One call, with another token where the first has ended. */
  async #call(call: Omit<Call, 'token'>, signal?: AbortSignal) {
    const answer = (token: string) => this.#http.call({ ...call, token }, signal, this.#hangUp.signal);
    const token = await this.#tokens.get();
    return answer(token).catch(async (error) => {
      if (error.status !== 401) throw error;
      return answer(await this.#tokens.get(token));
    });
  }

  #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const signals = [signal, this.#hangUp.signal];
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        for (const each of signals) each?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      for (const each of signals) each?.addEventListener('abort', done);
    });
  }

  #ended(listeners: readonly number[], error: PosthornError): void {
    let heard = false;
    for (const listener of listeners) {
      const each = this.#listeners.get(listener);
      if (!each) continue;
      this.#listeners.delete(listener);
      each.refused(error);
      heard ||= each.options.onError !== undefined;
      this.#guard(() => each.options.onError?.(error));
    }
    if (!heard && error.code !== 'closed') this.#emit('error', error);
  }

  #each(listeners: readonly number[], call: (listener: Listener) => unknown): void {
    for (const number of listeners) {
      // One that was called before may have ended this one.
      const listener = this.#listeners.get(number);
      if (listener) this.#guard(() => call(listener));
    }
  }

  #emit<Name extends keyof ClientEvents>(name: Name, event: ClientEvents[Name]): void {
    for (const listener of this.#on[name]) this.#guard(() => listener(event), name === 'error');
  }

  /** Calls what is not ours: its failure is told, and ends nothing. */
  #guard(call: () => unknown, ofErrors = false): void {
    const failed = (cause: unknown) => {
      const error = new PosthornError('handler_failed', 'Failed', { cause });
      // Where nobody listens, or who listens fails, it must not go unseen.
      if (ofErrors || this.#on.error.size === 0) console.error(error, cause);
      else this.#emit('error', error);
    };
    try {
      const result = call();
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  }
}

function expiresIn(frame: ServerFrame): number | undefined {
  return frame.action === 'welcome' && frame.expires ? Date.parse(frame.expires) - Date.now() : undefined;
}

function errorOf(cause: unknown): PosthornError {
  if (cause instanceof PosthornError) return cause;
  return new PosthornError('network', 'No connection', { cause });
}

function invalid(message: string): PosthornError {
  return new PosthornError('request_invalid', message);
}
