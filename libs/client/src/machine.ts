/**
 * The life of a client as a function of what happens: `transition(state, event)` changes the state and says what is
 * to be done. It has no timer, no clock, no randomness and no I/O: events carry the time, the state a seed, and
 * `wakeAt` says when a `tick` is due. States, events, effects and invariants: ../SPEC.md.
 */
import { type Finding, PosthornError, type PosthornErrorCode } from './error.js';
import type { ServerFrame } from './frame.js';
import { covers, isAt, newReader, type Place, placeOf, type Reader, restart, settle, take } from './place.js';
import { BROADCAST, isPattern, type TopicName, takes, topicName } from './topic.js';
import type { ConnectionState, EventInfo, Gap, Receipt, Transport, Welcome } from './types.js';

/** Milliseconds, but for counts. */
export const TIMES = {
  /** A token, a key, a connection until its welcome. */
  token: 20_000,
  sign: 15_000,
  opening: 10_000,
  /** Full jitter: a random part of `backoff * 2^failures`, at most `longest`. */
  backoff: 1_000,
  longest: 30_000,
  /** Between tries that a hidden or offline page, or one that broke the rules, makes. */
  slow: 60_000,
  /** After which a connection has proved itself, and failures before it are forgotten. */
  stable: 10_000,
  ping: 25_000,
  /** Of a hidden page; browsers let its timers go once in a minute. */
  hiddenPing: 55_000,
  /** How soon a place is asked for where many events stand beyond the last. */
  soon: 1_000,
  /** How long an answer to a ping may take, and where there is reason to doubt. */
  pong: 10_000,
  doubt: 5_000,
  /** A stream brings a pong every 15 s. */
  streamSilence: 40_000,
  /** How long before its end a token is renewed, at most a fifth of what is left. */
  renewal: 60_000,
  /** What a publish that was sent has: the server knows repeats for 120 s. */
  repeat: 90_000,
  /** Changed subscriptions wait this long for others before another stream is opened. */
  gather: 30,
  /** How long a publish waits for a stream that hears its topic. */
  hold: 5_000,
  /** When a client that streams tries a WebSocket again. */
  upgrade: 600_000,
} as const;

/** Sockets refused in a row, while HTTP works, after which a client streams. */
const REFUSALS = 2;
/** Publishes on their way at once. */
const WINDOW = 128;
/** Events of patterns beyond the last place, after which a place is asked for. */
const PLACE_AFTER = 256;
/** Events that may wait for those before them. */
const HELD = 1_000;
const RETRYABLE: readonly string[] = ['unavailable', 'rate_limited', 'network', 'timeout'];
const TOKEN_ENDED: readonly unknown[] = ['unauthorized', 'token_expired'];

export interface MachineOptions {
  /** Any integer. */
  readonly seed: number;
  /** What the client may use, in the order of preference. */
  readonly transports: readonly Transport[];
  readonly publishTimeout: number;
  readonly queueLimit: number;
  readonly frameLimit: number;
}

/** A failure, as the outside tells it. `retryAfter`: milliseconds. */
export interface Failure {
  readonly code: PosthornErrorCode;
  readonly detail: string;
  readonly status?: number | undefined;
  readonly errors?: readonly Finding[] | undefined;
  readonly retryAfter?: number | undefined;
  readonly cause?: unknown;
}

export type Event = { readonly now: number } & (
  | { readonly type: 'start' }
  | { readonly type: 'tick' }
  | { readonly type: 'token'; readonly n: number; readonly token: string }
  | { readonly type: 'key'; readonly n: number; readonly key: string }
  /** A token, a key or a connection could not be had. */
  | { readonly type: 'failed'; readonly n: number; readonly failure: Failure }
  /** `expiresIn`: of a `welcome`, milliseconds that the token is good for. */
  | {
      readonly type: 'frame';
      readonly n: number;
      readonly frame: ServerFrame;
      readonly expiresIn?: number | undefined;
    }
  | { readonly type: 'gone'; readonly n: number; readonly code: number }
  | { readonly type: 'network'; readonly online: boolean }
  | { readonly type: 'page'; readonly visible: boolean }
  | {
      readonly type: 'subscribe';
      readonly topic: string;
      readonly listener: number;
      readonly since?: string | undefined;
    }
  | { readonly type: 'unsubscribe'; readonly listener: number }
  | { readonly type: 'publish'; readonly publish: Draft }
  | { readonly type: 'posted'; readonly ref: string; readonly receipt: Receipt }
  | { readonly type: 'refused'; readonly ref: string; readonly failure: Failure }
  | { readonly type: 'close' }
);

/** A publish as it is called. `topic` undefined: a broadcast. `text`: the message as JSON, `bytes` its length. */
export interface Draft {
  readonly ref: string;
  readonly topic: string | undefined;
  readonly id: string;
  readonly text: string;
  readonly bytes: number;
  readonly repeat: boolean;
}

export type Effect =
  /** Get a token; `not` is one that is no longer good. Answer: `token` or `failed`. */
  | { readonly do: 'token'; readonly n: number; readonly not: string | undefined }
  /** Get a key. Answer: `key` or `failed`. */
  | { readonly do: 'sign'; readonly n: number; readonly token: string }
  /** Answer: `frame`s, then `gone`, or `failed`. */
  | { readonly do: 'socket'; readonly n: number; readonly key: string }
  | {
      readonly do: 'stream';
      readonly n: number;
      readonly token: string;
      readonly subscriptions: readonly Wanted[];
    }
  | { readonly do: 'send'; readonly n: number; readonly text: string }
  /** Give up whatever has this number. No answer. */
  | { readonly do: 'drop'; readonly n: number }
  /** Publish by HTTP. Answer: `posted` or `refused`. */
  | { readonly do: 'post'; readonly publish: Draft }
  | {
      readonly do: 'deliver';
      readonly listeners: readonly number[];
      readonly message: unknown;
      readonly info: EventInfo;
    }
  | { readonly do: 'ready'; readonly listeners: readonly number[]; readonly position: string | undefined }
  | { readonly do: 'gap'; readonly listeners: readonly number[]; readonly gap: Gap }
  /** The listeners' subscription is over. */
  | { readonly do: 'ended'; readonly listeners: readonly number[]; readonly error: PosthornError }
  | { readonly do: 'accepted'; readonly ref: string; readonly receipt: Receipt }
  | { readonly do: 'rejected'; readonly ref: string; readonly error: PosthornError }
  | { readonly do: 'welcome'; readonly welcome: Welcome }
  | { readonly do: 'state'; readonly state: ConnectionState }
  | { readonly do: 'error'; readonly error: PosthornError };

/** One member of a stream's body. */
export interface Wanted {
  readonly topic: string;
  readonly since: string | undefined;
  readonly ref: string;
}

/** Those of a topic's listeners that stand at one place. */
interface Group {
  readonly reader: Reader;
  listeners: readonly number[];
  /** Those that were not told that they have begun. */
  waiting: number[];
}

interface Topic {
  readonly name: TopicName;
  /** As the server is asked for it. */
  readonly wire: string;
  readonly pattern: boolean;
  readonly groups: Group[];
  /** The connection on which it is asked for, the one on which it was last, the question's number, what was asked. */
  asked: number;
  last: number;
  /** How often it was ended on that connection and the server has not said so yet. */
  leaving: number;
  ref: string;
  since: string | undefined;
  /** Whether the server has said so on that connection. */
  begun: boolean;
  retryAt: number | undefined;
  failures: number;
  /** Where it begins on the connection, if it was not asked for from a place. */
  start: Place | undefined;
  /** Whether a pattern is still given what it missed. */
  behind: boolean;
  /** What came ahead of missed events. */
  held: { readonly info: EventInfo; readonly message: unknown }[];
}

interface Publish extends Draft {
  readonly called: number;
  /** When it was sent first. */
  sent: number | undefined;
  /** The connection that it is on its way on; -1 for HTTP, 0 for none. */
  via: number;
  by: number;
  notBefore: number;
  failures: number;
  /** Goes by HTTP, whatever the connection. */
  post: boolean;
  /** Whether it was sent once and no answer came. */
  doubt: boolean;
  /** With which it was refused for the moment. */
  error: PosthornError | undefined;
}

interface Attempt {
  readonly n: number;
  readonly transport: Transport;
  step: 'token' | 'sign' | 'opening';
  by: number;
  error: PosthornError | undefined;
}

interface Link {
  readonly n: number;
  readonly transport: Transport;
  readonly id: string;
  readonly opened: number;
  heard: number;
  /** When the next ping is due; undefined while one is unanswered, and on a stream. */
  pingAt: number | undefined;
  pinged: number;
  /** When it counts as lost unless something comes. */
  lostAt: number | undefined;
  renewAt: number | undefined;
  /** A renewal on its way: its `ref` once it was sent. */
  renewing: string | undefined;
  comeBackIn: number | undefined;
  /** Whether a broadcast has come on it. */
  announced: boolean;
  error: PosthornError | undefined;
}

export interface State {
  readonly options: MachineOptions;
  phase: 'new' | 'running' | 'closed';
  seed: number;
  count: number;
  online: boolean;
  visible: boolean;
  attempt: Attempt | undefined;
  link: Link | undefined;
  /** When the next attempt is due, and whether the server has set that time. */
  retryAt: number | undefined;
  imposed: boolean;
  failures: number;
  refusals: number;
  streaming: boolean;
  upgradeAt: number;
  restreamAt: number | undefined;
  token: string | undefined;
  /** A token that the server has refused. */
  bad: string | undefined;
  error: PosthornError | undefined;
  readonly topics: Map<string, Topic>;
  readonly publishes: Map<string, Publish>;
  told: string;
}

export function newState(options: MachineOptions): State {
  return {
    options,
    phase: 'new',
    seed: options.seed | 0,
    count: 0,
    online: true,
    visible: true,
    attempt: undefined,
    link: undefined,
    retryAt: undefined,
    imposed: false,
    failures: 0,
    refusals: 0,
    streaming: options.transports[0] === 'stream',
    upgradeAt: 0,
    restreamAt: undefined,
    token: undefined,
    bad: undefined,
    error: undefined,
    topics: new Map(),
    publishes: new Map(),
    told: '',
  };
}

/** What is to be done about an event, in this order. The state is changed in place. */
export function transition(state: State, event: Event): readonly Effect[] {
  const effects: Effect[] = [];
  new Step(state, event.now, effects).take(event);
  return effects;
}

/** When a `tick` is due, unless something else happens before. */
export function wakeAt(state: State, now: number): number {
  const { attempt, link, retryAt, restreamAt, phase, publishes, topics } = state;
  if (phase !== 'running') return Infinity;
  let at = Math.min(attempt?.by ?? Infinity, attempt ? Infinity : (retryAt ?? Infinity));
  // What could be done by now and was not, waits for something else.
  const later = (time: number | undefined) => {
    if (time !== undefined && time > now) at = Math.min(at, time);
  };
  if (link) {
    at = Math.min(at, link.pingAt ?? Infinity, link.lostAt ?? Infinity, link.renewAt ?? Infinity);
    if (!attempt) at = Math.min(at, restreamAt ?? Infinity, canUpgrade(state) ? state.upgradeAt : Infinity);
    for (const topic of topics.values()) later(topic.retryAt);
  }
  for (const publish of publishes.values()) {
    at = Math.min(at, publish.by);
    if (!link || publish.via) continue;
    later(publish.notBefore);
    if (link.transport === 'stream') later(publish.called + TIMES.hold);
  }
  return at;
}

/** Whether an event comes by a subscription that began on this connection, without a place of its own. */
function isFrom({ since, start }: Topic, position: string | undefined): boolean {
  const place = placeOf(position);
  if (since !== undefined || !start || !place) return false;
  return place.epoch !== start.epoch || place.sequence > start.sequence;
}

/** Whether a pattern may deliver what another subscription would, too. */
function shares(pattern: Topic, other: Topic): boolean {
  if (!pattern.pattern || pattern === other) return false;
  return other.pattern || takes(pattern.name.segments, other.name);
}

function canUpgrade({ link, options }: State): boolean {
  return link?.transport === 'stream' && options.transports.includes('websocket');
}

/** One event at work. */
class Step {
  readonly #s: State;
  readonly #now: number;
  readonly #out: Effect[];

  constructor(state: State, now: number, effects: Effect[]) {
    this.#s = state;
    this.#now = now;
    this.#out = effects;
  }

  take(event: Event) {
    const s = this.#s;
    if (s.phase === 'closed') return this.#afterClose(event);
    this.#apply(event);
    if (s.phase === 'running') {
      this.#due();
      this.#flush();
    }
    this.#tellState();
  }

  /** What is called after the end ends at once. */
  #afterClose(event: Event): void {
    if (event.type === 'publish') this.#reject(event.publish.ref, closed());
    if (event.type === 'subscribe')
      this.#out.push({ do: 'ended', listeners: [event.listener], error: closed() });
  }

  #apply(event: Event) {
    const s = this.#s;
    switch (event.type) {
      case 'start':
        if (s.phase !== 'new') return;
        s.phase = 'running';
        return this.#connect();
      case 'tick':
        return;
      case 'token':
        return this.#gotToken(event.n, event.token);
      case 'key':
        return this.#gotKey(event.n, event.key);
      case 'failed':
        return this.#failed(event.n, event.failure);
      case 'frame':
        return this.#frame(event.n, event.frame, event.expiresIn);
      case 'gone':
        return this.#gone(event.n, event.code);
      case 'network':
        s.online = event.online;
        // Another network may let WebSockets through.
        if (event.online) s.upgradeAt = event.now;
        return this.#doubt(event.online);
      case 'page':
        s.visible = event.visible;
        if (event.visible) this.#doubt(true);
        return;
      case 'subscribe':
        return this.#subscribe(event.topic, event.listener, event.since);
      case 'unsubscribe':
        return this.#unsubscribe(event.listener);
      case 'publish':
        return this.#publish(event.publish);
      case 'posted':
        return this.#accept(event.ref, event.receipt);
      case 'refused':
        return this.#refused(event.ref, event.failure);
      case 'close':
        return this.#close();
    }
  }

  // Connecting

  /** Begins an attempt, beside the present connection where there is one. */
  #connect(
    transport: Transport = this.#s.streaming ? 'stream' : (this.#s.options.transports[0] as Transport),
  ): void {
    const s = this.#s;
    s.retryAt = undefined;
    s.imposed = false;
    const n = ++s.count;
    s.attempt = { n, transport, step: 'token', by: this.#now + TIMES.token, error: undefined };
    this.#out.push({ do: 'token', n, not: s.bad });
  }

  #gotToken(n: number, token: string) {
    const s = this.#s;
    const { attempt, link } = s;
    if (attempt?.n === n && attempt.step === 'token') {
      s.token = token;
      if (attempt.transport === 'stream') return this.#openStream(attempt, token);
      attempt.step = 'sign';
      attempt.by = this.#now + TIMES.sign;
      this.#out.push({ do: 'sign', n, token });
    } else if (link?.n === n && link.renewing === '') {
      s.token = token;
      link.renewing = this.#ref();
      this.#send({ action: 'auth', token, ref: link.renewing });
    }
  }

  #gotKey(n: number, key: string): void {
    const { attempt } = this.#s;
    if (attempt?.n !== n || attempt.step !== 'sign') return;
    this.#opening(attempt);
    this.#out.push({ do: 'socket', n, key });
  }

  #openStream(attempt: Attempt, token: string): void {
    this.#opening(attempt);
    this.#s.restreamAt = undefined;
    this.#forget();
    const subscriptions: Wanted[] = [];
    for (const topic of this.#s.topics.values()) {
      this.#ask(topic, attempt.n);
      subscriptions.push({ topic: topic.wire, since: topic.since, ref: topic.ref });
    }
    this.#out.push({ do: 'stream', n: attempt.n, token, subscriptions });
  }

  #opening(attempt: Attempt): void {
    attempt.step = 'opening';
    attempt.by = this.#now + TIMES.opening;
  }

  #failed(n: number, failure: Failure): void {
    const s = this.#s;
    const { attempt, link } = s;
    if (link?.n === n && link.renewing === '') {
      this.#report(errorOf(failure));
      link.renewing = undefined;
      link.renewAt = this.#now + this.#backoff(1) + TIMES.doubt;
    }
    if (attempt?.n === n) this.#abandon(attempt, failure);
  }

  /** Ends an attempt that came to nothing, and says when the next one is. */
  #abandon(attempt: Attempt, failure: Failure, code?: number) {
    const s = this.#s;
    s.attempt = undefined;
    const error = errorOf(failure);
    const ofToken = TOKEN_ENDED.includes(failure.code);
    if (ofToken) s.bad = s.token;
    if (s.link) {
      // It was to take the place of a connection that goes on.
      if (attempt.transport === 'websocket') s.upgradeAt = this.#now + TIMES.upgrade;
      else s.restreamAt = this.#now + TIMES.soon + this.#backoff(++s.failures);
      return;
    }
    this.#unask();
    s.error = error;
    this.#report(error);
    const opened = attempt.step === 'opening';
    if (attempt.transport === 'websocket') s.refusals = opened ? s.refusals + 1 : 0;
    const [first, second] = s.options.transports;
    if (opened && second && s.refusals >= REFUSALS) {
      // A stream that cannot be had either says that it is not about WebSockets.
      s.streaming = attempt.transport === 'websocket' ? second === 'stream' : first === 'stream';
      s.refusals = s.streaming ? s.refusals : 0;
      if (s.streaming) return this.#retry(0);
    }
    // One that was kept may have ended meanwhile: the next is had at once.
    if (ofToken && s.failures++ === 0) return this.#retry(0);
    this.#back(failure, code);
  }

  /** Waits for the next attempt, as long as how the last one ended asks for. */
  #back(failure: Failure | undefined, code?: number): void {
    const s = this.#s;
    let wait = this.#backoff(s.failures++);
    if (code === 1008) wait = Math.max(wait, TIMES.slow * (0.5 + this.#random() / 2));
    else if (failure?.status === 403 || failure?.status === 404) wait = Math.max(wait, TIMES.doubt);
    const unwatched = !s.visible && s.failures > 1;
    if (unwatched || !s.online) wait = Math.max(wait, TIMES.slow * (0.5 + this.#random() / 2));
    const least = failure?.retryAfter ?? 0;
    this.#retry(Math.max(wait, least), least > 0 || code === 1008);
  }

  #retry(wait: number, imposed = false): void {
    this.#s.retryAt = this.#now + wait;
    this.#s.imposed = imposed;
  }

  #gone(n: number, code: number) {
    const s = this.#s;
    const { attempt, link } = s;
    if (attempt?.n === n) {
      const detail = `The connection was refused (${code})`;
      const { error } = attempt;
      const failure: Failure = error
        ? { ...error, code: error.code, detail: error.message }
        : { code: code === 4401 ? 'unauthorized' : 'network', detail };
      return this.#abandon(attempt, failure, code);
    }
    if (link?.n === n) this.#lost(link, code);
  }

  #hangUp(link: Link): void {
    this.#out.push({ do: 'drop', n: link.n });
    this.#lost(link, 1000);
  }

  /** The connection is over. */
  #lost(link: Link, code: number): void {
    const s = this.#s;
    s.link = undefined;
    s.restreamAt = undefined;
    if (code === 4401 || TOKEN_ENDED.includes(link.error?.code)) s.bad = s.token;
    if (this.#now - link.opened >= TIMES.stable) s.failures = 0;
    this.#unlink(link.n, code === 1009);
    s.error = link.error;
    if (link.error) this.#report(link.error);
    // One that was to take its place goes on by itself.
    if (s.attempt) return;
    this.#unask();
    if (link.comeBackIn !== undefined) this.#retry(link.comeBackIn, true);
    else this.#back(undefined, code);
  }

  /** What was on its way on a connection is to be sent again; what never may be is given up. */
  #unlink(n: number, tooLarge = false): void {
    let largest: Publish | undefined;
    for (const publish of this.#s.publishes.values()) {
      if (publish.via !== n) continue;
      publish.via = 0;
      publish.doubt = true;
      if (!largest || publish.bytes > largest.bytes) largest = publish;
      if (!publish.repeat) this.#expire(publish);
    }
    if (tooLarge && largest) largest.post = true;
  }

  /** Forgets topics that nobody hears any more. */
  #forget(): void {
    for (const [key, { groups }] of this.#s.topics) if (groups.length === 0) this.#s.topics.delete(key);
  }

  #unask(): void {
    this.#forget();
    for (const topic of this.#s.topics.values()) {
      topic.asked = 0;
      topic.begun = false;
      topic.retryAt = undefined;
    }
  }

  #backoff(failures: number): number {
    return this.#random() * Math.min(TIMES.longest, TIMES.backoff * 2 ** Math.min(failures, 10));
  }

  /** There is reason to look whether the connection is there, or time to have one. */
  #doubt(good: boolean): void {
    const s = this.#s;
    const now = this.#now;
    const { link } = s;
    if (link) {
      link.lostAt = Math.min(
        link.lostAt ?? Infinity,
        now + (link.transport === 'stream' ? 4 : 1) * TIMES.doubt,
      );
      if (link.pingAt !== undefined) this.#ping(link, TIMES.doubt);
    } else if (good && s.retryAt !== undefined && !s.imposed) this.#connect();
  }

  // Time

  /** Does what its time has come for. */
  #due(): void {
    const s = this.#s;
    const now = this.#now;
    const { attempt, link } = s;
    if (attempt && now >= attempt.by) {
      this.#out.push({ do: 'drop', n: attempt.n });
      const code = attempt.step === 'token' ? 'token_failed' : 'timeout';
      this.#abandon(attempt, { code, detail: `No answer in time (${attempt.step})` });
    }
    if (link && s.link === link) this.#dueOn(link);
    if (s.retryAt !== undefined && now >= s.retryAt && !s.attempt) this.#connect();
    for (const publish of s.publishes.values()) if (now >= publish.by) this.#expire(publish);
  }

  #dueOn(link: Link) {
    const s = this.#s;
    const now = this.#now;
    if (link.lostAt !== undefined && now >= link.lostAt) {
      // Told of it late, this process stood still: what has come meanwhile is not yet read.
      if (now - link.lostAt < TIMES.doubt) {
        link.error ??= new PosthornError('timeout', 'The server was silent for too long');
        return this.#hangUp(link);
      }
      link.lostAt = now + TIMES.doubt;
    }
    if (link.pingAt !== undefined && now >= link.pingAt) this.#ping(link, TIMES.pong);
    if (link.renewAt !== undefined && now >= link.renewAt) this.#renew(link);
    if (link.transport === 'websocket') this.#askAll(link);
    else if (!s.attempt) {
      if (s.restreamAt !== undefined && now >= s.restreamAt) this.#connect('stream');
      else if (canUpgrade(s) && now >= s.upgradeAt) this.#connect('websocket');
    }
  }

  #ping(link: Link, patience: number): void {
    link.pingAt = undefined;
    link.pinged = this.#now;
    link.lostAt = Math.min(link.lostAt ?? Infinity, this.#now + patience);
    this.#send({ action: 'ping' });
  }

  #renew(link: Link): void {
    const s = this.#s;
    link.renewAt = undefined;
    if (link.transport === 'stream') {
      s.bad = s.token;
      s.restreamAt = this.#now;
      if (!s.attempt) this.#connect('stream');
      return;
    }
    link.renewing = '';
    this.#out.push({ do: 'token', n: link.n, not: s.token });
  }

  // Frames

  #frame(n: number, frame: ServerFrame, expiresIn: number | undefined) {
    const s = this.#s;
    const { attempt } = s;
    if (attempt?.n === n && attempt.step === 'opening') {
      if (frame.action === 'welcome') this.#opened(attempt, frame);
      // Why it is refused comes before its end.
      else if (frame.action === 'error') attempt.error = errorOf(frame);
    }
    const { link } = s;
    if (link?.n !== n) return;
    link.heard = this.#now;
    // Whatever comes is a sign of life; what was asked is still to be answered.
    const patience =
      link.transport === 'stream' ? TIMES.streamSilence : link.pingAt === undefined ? TIMES.pong : Infinity;
    link.lostAt = this.#now + patience;
    switch (frame.action) {
      case 'welcome':
        return this.#welcomed(link, frame, expiresIn);
      case 'subscribed':
        return this.#begun(link, frame);
      case 'unsubscribed':
        return this.#unsubscribed(link, frame);
      case 'message':
        return this.#message(link, frame);
      case 'broadcast':
        return this.#broadcast(link, frame);
      case 'published':
        return this.#accept(frame.ref, { id: frame.id, position: frame.position });
      case 'error':
        return this.#problem(link, frame);
      case 'pong':
        return this.#pong(link, frame.position);
      case 'reconnect':
        link.comeBackIn = frame.after_ms;
    }
  }

  /** An attempt becomes the connection, in the place of the one before. */
  #opened({ n, transport }: Attempt, { connection: id }: ServerFrame & { action: 'welcome' }): void {
    const s = this.#s;
    const now = this.#now;
    const before = s.link;
    if (before) {
      this.#out.push({ do: 'drop', n: before.n });
      this.#unlink(before.n);
    }
    s.attempt = undefined;
    s.error = undefined;
    s.retryAt = undefined;
    s.bad = undefined;
    if (transport === 'websocket') {
      s.refusals = 0;
      s.streaming = false;
      s.restreamAt = undefined;
    } else if (before?.transport !== 'stream') s.upgradeAt = now + TIMES.upgrade;
    s.link = {
      n,
      transport,
      id,
      opened: now,
      heard: now,
      pingAt: transport === 'websocket' ? now + TIMES.soon * (2 + this.#random()) : undefined,
      pinged: now,
      lostAt: undefined,
      renewAt: undefined,
      renewing: undefined,
      comeBackIn: undefined,
      announced: false,
      error: undefined,
    };
    this.#forget();
    for (const topic of s.topics.values()) {
      topic.begun = false;
      topic.retryAt = undefined;
      if (topic.asked !== n) topic.asked = 0;
    }
    this.#askAll(s.link);
  }

  #welcomed(link: Link, frame: ServerFrame & { action: 'welcome' }, expiresIn: number | undefined): void {
    const { connection, audience, expires, room } = frame;
    link.renewing = undefined;
    // A clock that is wrong says that a token has ended which the server has just accepted.
    link.renewAt =
      expiresIn === undefined
        ? undefined
        : this.#now +
          (expiresIn > 0
            ? Math.max(expiresIn - Math.min(TIMES.renewal, expiresIn / 5), TIMES.soon)
            : TIMES.renewal * (1 + this.#random()));
    this.#out.push({ do: 'welcome', welcome: { connection, audience, expires, room } });
  }

  #problem(link: Link, frame: ServerFrame & { action: 'error' }) {
    const s = this.#s;
    const { ref } = frame;
    if (ref === undefined) {
      link.error = errorOf(frame);
      return;
    }
    if (s.publishes.has(ref)) return this.#refused(ref, frame);
    if (ref === link.renewing) return this.#notRenewed(link, frame);
    for (const topic of s.topics.values()) {
      if (topic.asked === link.n && topic.ref === ref && !topic.begun)
        return this.#notBegun(topic, errorOf(frame));
    }
  }

  #notRenewed(link: Link, frame: ServerFrame & { action: 'error' }): void {
    const s = this.#s;
    link.renewing = undefined;
    this.#report(errorOf(frame));
    if (frame.code !== 'forbidden') {
      link.renewAt = this.#now + this.#backoff(2) + TIMES.doubt;
      return;
    }
    // It is somebody else's: the connection is, too.
    this.#hangUp(link);
    if (!s.attempt) this.#connect();
  }

  #pong(link: Link, position: string | undefined): void {
    let behind = false;
    for (const topic of this.#s.topics.values()) {
      if (topic.asked !== link.n || !topic.begun) continue;
      if (position === undefined) {
        behind ||= topic.pattern || topic.held.length > 0;
        continue;
      }
      topic.behind = false;
      this.#release(topic);
      for (const { reader } of topic.groups) settle(reader, position);
    }
    if (link.transport === 'stream') return;
    link.lostAt = undefined;
    const { ping, hiddenPing, soon } = TIMES;
    const calm = (this.#s.visible ? ping : hiddenPing) * (0.9 + this.#random() / 5);
    link.pingAt = this.#now + (behind ? 2 * soon : calm);
  }

  // Subscriptions

  #subscribe(name: string, listener: number, since: string | undefined): void {
    const s = this.#s;
    const topic = topicName(name);
    let known = s.topics.get(topic.key);
    if (!known) {
      known = {
        name: topic,
        wire: name,
        pattern: isPattern(name),
        groups: [],
        asked: 0,
        last: 0,
        leaving: 0,
        ref: '',
        since: undefined,
        begun: false,
        retryAt: undefined,
        failures: 0,
        start: undefined,
        behind: false,
        held: [],
      };
      s.topics.set(topic.key, known);
    }
    const { groups } = known;
    const [first] = groups;
    const same = since === undefined ? first : groups.find(({ reader }) => isAt(reader, since));
    if (same) {
      same.listeners = [...same.listeners, listener];
      if (known.begun && this.#isOnLink(known)) this.#ready([listener], same.reader.since);
      else same.waiting.push(listener);
    } else {
      const reader = newReader(since, known.pattern);
      const group: Group = { reader, listeners: [listener], waiting: [] };
      groups.push(group);
      const missed = known.pattern || !covers(reader, first?.reader.floor);
      if (first && known.begun && this.#isOnLink(known) && !missed) this.#ready([listener], since);
      else {
        group.waiting.push(listener);
        // What is asked for already begins later: it is asked for again, from there.
        for (const each of s.topics.values()) {
          if (each !== known && (since === undefined || each.groups.length === 0 || !shares(known, each)))
            continue;
          each.asked = 0;
          each.begun = false;
        }
      }
    }
    this.#askSoon();
  }

  #isOnLink(topic: Topic): boolean {
    return topic.asked !== 0 && topic.asked === this.#s.link?.n;
  }

  /** Asks for what is not asked for on the connection: at once, or with a stream that begins soon. */
  #askSoon(): void {
    const { link } = this.#s;
    if (link) this.#askAll(link);
  }

  #askAll(link: Link) {
    const s = this.#s;
    if (link.transport === 'stream') {
      for (const { asked, retryAt } of s.topics.values()) {
        if (asked < link.n)
          s.restreamAt = Math.min(s.restreamAt ?? Infinity, retryAt ?? this.#now + TIMES.gather);
      }
      return;
    }
    const due = [...s.topics.values()].filter(
      ({ asked, retryAt, groups }) =>
        groups.length > 0 && asked !== link.n && !(retryAt !== undefined && retryAt > this.#now),
    );
    for (const topic of due) {
      // What has come on a connection it will not bring again: another one does.
      if (link.announced && topic.name.key === BROADCAST && oldestOf(topic.groups) !== undefined) {
        this.#hangUp(link);
        return this.#connect();
      }
      // Whatever has become of what was asked before: it ends, and keeps nothing from what is asked for now.
      if (topic.last === link.n) {
        topic.leaving++;
        this.#send({ action: 'unsubscribe', topic: topic.wire, ref: this.#ref() });
      }
    }
    // Topics first: what patterns share with them is theirs to deliver.
    for (const topic of due.sort((a, b) => Number(a.pattern) - Number(b.pattern))) {
      this.#ask(topic, link.n);
      this.#send({ action: 'subscribe', topic: topic.wire, since: topic.since, ref: topic.ref });
    }
  }

  #ask(topic: Topic, n: number): void {
    topic.asked = n;
    if (topic.last !== n) {
      topic.held = [];
      topic.leaving = 0;
    }
    topic.last = n;
    topic.begun = false;
    topic.retryAt = undefined;
    topic.ref = this.#ref();
    topic.since = this.#placeOf(topic);
    topic.start = undefined;
    topic.behind = topic.pattern && topic.since !== undefined;
  }

  /**
   * Where a topic is asked for from. What a pattern shares with a topic, or with another pattern, one of them delivers
   * for both: so from the place of the one that is further behind.
   */
  #placeOf(topic: Topic): string | undefined {
    if (oldestOf(topic.groups) === undefined) return undefined;
    const groups = [...topic.groups];
    for (const other of this.#s.topics.values()) if (shares(other, topic)) groups.push(...other.groups);
    return oldestOf(groups);
  }

  #begun(link: Link, frame: ServerFrame & { action: 'subscribed' }): void {
    for (const topic of this.#s.topics.values()) {
      if (topic.asked !== link.n || topic.ref !== frame.ref || topic.begun) continue;
      const { position, recovered } = frame;
      topic.begun = true;
      topic.failures = 0;
      const place = placeOf(position);
      if (topic.since === undefined) topic.start = place;
      for (const group of topic.groups) {
        const { reader } = group;
        if (reader.since === undefined) restart(reader, place, position);
        else if (recovered === false) this.#lostHistory(topic, group, place, position);
        if (group.waiting.length > 0) this.#ready(group.waiting, reader.since);
        group.waiting = [];
      }
      if (topic.held.length > 0) this.#placeSoon(link);
      return;
    }
  }

  /** Tells those whose history is lost, and goes on from where the server does. */
  #lostHistory(
    topic: Topic,
    { reader, listeners }: Group,
    place: Place | undefined,
    position?: string,
  ): void {
    const { since } = reader;
    if (since === undefined || (since !== topic.since && covers(reader, place))) return;
    restart(reader, place, position);
    this.#out.push({ do: 'gap', listeners, gap: { topic: topic.wire, since, position } });
  }

  #notBegun(topic: Topic, error: PosthornError) {
    if (!RETRYABLE.includes(error.code) && error.code !== 'internal') return this.#end(topic, error);
    topic.asked = 0;
    topic.begun = false;
    const wait = this.#backoff(++topic.failures);
    topic.retryAt = this.#now + TIMES.backoff / 2 + wait;
    this.#askSoon();
  }

  /** The server ends a subscription of its own accord; why, it has said before. */
  #unsubscribed(link: Link, { topic: name, ref }: ServerFrame & { action: 'unsubscribed' }): void {
    const topic = this.#s.topics.get(topicName(name).key);
    if (!topic || topic.last !== link.n) return;
    if (ref !== undefined) topic.leaving = Math.max(0, topic.leaving - 1);
    if (topic.leaving === 0 && topic.groups.length === 0) this.#s.topics.delete(topic.name.key);
    // What ends before the server comes to our own word is what that would have ended.
    if (ref !== undefined || topic.leaving > 0 || topic.asked !== link.n) return;
    const error = link.error ?? new PosthornError('unavailable', `${name} was ended by the server`);
    link.error = undefined;
    this.#notBegun(topic, error);
  }

  #end(topic: Topic, error: PosthornError): void {
    this.#s.topics.delete(topic.name.key);
    const listeners = topic.groups.flatMap((group) => group.listeners);
    this.#out.push({ do: 'ended', listeners, error });
  }

  #unsubscribe(listener: number): void {
    const s = this.#s;
    const other = (one: number) => one !== listener;
    for (const topic of s.topics.values()) {
      const at = topic.groups.findIndex(({ listeners }) => listeners.includes(listener));
      const group = topic.groups[at];
      if (!group) continue;
      group.listeners = group.listeners.filter(other);
      group.waiting = group.waiting.filter(other);
      if (group.listeners.length > 0) return;
      topic.groups.splice(at, 1);
      if (topic.groups.length > 0) return;
      if (!this.#isOnLink(topic)) return void s.topics.delete(topic.name.key);
      // What is still on its way is known by it.
      if (s.link?.transport === 'stream') s.restreamAt ??= this.#now + TIMES.soon;
      else {
        topic.leaving++;
        this.#send({ action: 'unsubscribe', topic: topic.wire, ref: this.#ref() });
      }
      return;
    }
  }

  #ready(listeners: readonly number[], position: string | undefined): void {
    this.#out.push({ do: 'ready', listeners, position });
  }

  // Events

  #message(link: Link, { topic: name, id, position, message }: ServerFrame & { action: 'message' }): void {
    const { topics } = this.#s;
    const topic = topicName(name);
    const info: EventInfo = { id, position, topic: name };
    const exact = topics.get(topic.key);
    const isBegun = (each: Topic | undefined) => each?.begun === true && this.#isOnLink(each);
    const patterns: Topic[] = [];
    for (const each of topics.values())
      if (each.pattern && takes(each.name.segments, topic)) patterns.push(each);
    if (exact && isBegun(exact)) this.#deliver(exact, info, message);
    // What one delivers, the others that are being resumed will not be given again.
    else if (!patterns.some(isBegun)) return;
    const begun = [...patterns, exact].filter(isBegun) as Topic[];
    for (const pattern of patterns) {
      // One that began now brings what is new while another one is still given what it missed of the same topic.
      if (
        (pattern.behind || !isBegun(pattern)) &&
        begun.some((other) => other !== pattern && isFrom(other, position))
      ) {
        this.#hold(link, pattern, info, message);
        continue;
      }
      this.#deliver(pattern, info, message);
      if ((pattern.groups[0]?.reader.seen?.size ?? 0) >= PLACE_AFTER) this.#placeSoon(link);
    }
  }

  #broadcast(link: Link, { id, position, message }: ServerFrame & { action: 'broadcast' }): void {
    link.announced = true;
    const topic = this.#s.topics.get(BROADCAST);
    if (!topic) return;
    const info: EventInfo = { id, position, topic: BROADCAST };
    // Live ones come from the welcome on; missed ones, which stand before them, only once they were asked for.
    if (!topic.begun && oldestOf(topic.groups) !== undefined) {
      this.#hold(link, topic, info, message);
      return;
    }
    const place = placeOf(position);
    const next = placeOf(topic.held[0]?.info.position);
    if (place && next && (place.epoch !== next.epoch || place.sequence > next.sequence)) this.#release(topic);
    this.#deliver(topic, info, message);
  }

  #hold(link: Link, topic: Topic, info: EventInfo, message: unknown): void {
    topic.held.push({ info, message });
    this.#placeSoon(link);
    if (topic.held.length > HELD && this.#s.link === link) this.#hangUp(link);
  }

  /** Delivers what was held back: everything before it has come. */
  #release(topic: Topic): void {
    for (const { info, message } of topic.held.splice(0)) this.#deliver(topic, info, message);
  }

  #deliver(topic: Topic, info: EventInfo, message: unknown): void {
    for (const { reader, listeners } of topic.groups) {
      // What has not begun anywhere begins with the server's word.
      if (!topic.begun && reader.since === undefined) continue;
      if (take(reader, info.position)) this.#out.push({ do: 'deliver', listeners, message, info });
    }
  }

  #placeSoon(link: Link): void {
    if (link.pingAt === undefined) return;
    link.pingAt = Math.max(this.#now, Math.min(link.pingAt, link.pinged + TIMES.soon));
  }

  // Publishes

  #publish(draft: Draft) {
    const s = this.#s;
    const now = this.#now;
    if (s.publishes.size >= s.options.queueLimit) {
      return this.#reject(draft.ref, new PosthornError('queue_full', 'Too many publishes wait'));
    }
    s.publishes.set(draft.ref, {
      ...draft,
      called: now,
      sent: undefined,
      via: 0,
      by: now + s.options.publishTimeout,
      notBefore: 0,
      failures: 0,
      post: draft.bytes > s.options.frameLimit,
      doubt: false,
      error: undefined,
    });
  }

  /** Sends what is due, in the order of the calls. */
  #flush(): void {
    const s = this.#s;
    const now = this.#now;
    const { link } = s;
    if (!link || s.publishes.size === 0) return;
    let sent = 0;
    let posted = false;
    for (const { via } of s.publishes.values()) {
      if (via > 0) sent++;
      posted ||= via < 0;
    }
    // What the server refused for the moment holds back what was called after it: that would overtake it.
    const held = new Set<boolean>();
    for (const publish of s.publishes.values()) {
      const isBroadcast = publish.topic === undefined;
      if (publish.via < 0 && !publish.post) held.add(isBroadcast);
      if (publish.via) continue;
      if (publish.notBefore > now) held.add(isBroadcast);
      if (held.has(isBroadcast)) continue;
      if (publish.post || link.transport === 'stream') {
        if (posted || this.#awaitsStream(publish)) {
          if (link.transport === 'stream') return;
          continue;
        }
        posted = true;
        this.#leaves(publish, -1);
        this.#out.push({ do: 'post', publish });
      } else if (sent < WINDOW) {
        sent++;
        this.#leaves(publish, link.n);
        this.#out.push({ do: 'send', n: link.n, text: frameOf(publish) });
      }
    }
  }

  /** Whether a publish has to wait until the topics subscribed to before it are heard. */
  #awaitsStream({ called }: Publish): boolean {
    const s = this.#s;
    if (s.link?.transport !== 'stream' || this.#now - called >= TIMES.hold) return false;
    for (const topic of s.topics.values()) {
      if (!(topic.begun && topic.asked === s.link.n) && topic.retryAt === undefined) return true;
    }
    return false;
  }

  #leaves(publish: Publish, via: number): void {
    publish.via = via;
    publish.notBefore = 0;
    publish.sent ??= this.#now;
    publish.by = Math.min(publish.by, publish.sent + TIMES.repeat);
  }

  #accept(ref: string, receipt: Receipt): void {
    if (this.#s.publishes.delete(ref)) this.#out.push({ do: 'accepted', ref, receipt });
  }

  #refused(ref: string, failure: Failure) {
    const s = this.#s;
    const publish = s.publishes.get(ref);
    if (!publish) return;
    publish.via = 0;
    const error = errorOf(failure);
    const { code } = error;
    // A token that ended is followed by another; without an answer it may have been stored.
    const ofToken = TOKEN_ENDED.includes(code);
    if (ofToken) s.bad = s.token;
    const unanswered = code === 'network' || code === 'timeout';
    if (unanswered) publish.doubt = true;
    else publish.error = error;
    if (!publish.repeat) return this.#expire(publish);
    if (!ofToken && !RETRYABLE.includes(code)) return this.#giveUp(publish, error);
    const wait = this.#backoff(Math.min(publish.failures++, 3));
    publish.notBefore = this.#now + Math.max(wait, TIMES.backoff / 4, failure.retryAfter ?? 0);
  }

  /** Gives a publish up, and says what is known of it. */
  #expire(publish: Publish): void {
    const { doubt, via, error } = publish;
    if (doubt || via) {
      this.#giveUp(publish, new PosthornError('unconfirmed', 'No answer came in time: it may be stored'));
    } else this.#giveUp(publish, error ?? new PosthornError('unsent', 'There was no connection in time'));
  }

  #giveUp({ ref }: Publish, error: PosthornError): void {
    this.#s.publishes.delete(ref);
    this.#reject(ref, error);
  }

  #reject(ref: string, error: PosthornError): void {
    this.#out.push({ do: 'rejected', ref, error });
  }

  // The end

  #close(): void {
    const s = this.#s;
    for (const each of [s.attempt, s.link]) if (each) this.#out.push({ do: 'drop', n: each.n });
    for (const ref of s.publishes.keys()) this.#reject(ref, closed());
    for (const topic of s.topics.values()) this.#end(topic, closed());
    s.publishes.clear();
    s.attempt = undefined;
    s.link = undefined;
    s.retryAt = undefined;
    s.phase = 'closed';
  }

  // Telling

  #report(error: PosthornError): void {
    this.#out.push({ do: 'error', error });
  }

  #tellState(): void {
    const s = this.#s;
    if (s.phase === 'new') return;
    const state = stateOf(s, this.#now);
    const key = `${state.status} ${s.link?.id ?? ''} ${state.status === 'waiting' ? s.retryAt : ''}`;
    if (key === s.told) return;
    s.told = key;
    this.#out.push({ do: 'state', state });
  }

  #send(frame: object): void {
    const { link } = this.#s;
    if (link) this.#out.push({ do: 'send', n: link.n, text: JSON.stringify(frame) });
  }

  #ref(): string {
    return `s${++this.#s.count}`;
  }

  /** Mulberry32: the next number of the seed's, in [0, 1). */
  #random(): number {
    this.#s.seed = (this.#s.seed + 0x6d2b79f5) | 0;
    let t = this.#s.seed;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  }
}

function stateOf({ phase, link, attempt, retryAt, online, error }: State, now: number): ConnectionState {
  if (phase === 'closed') return { status: 'closed' };
  if (link) return { status: 'connected', transport: link.transport, connection: link.id };
  if (attempt) return { status: 'connecting' };
  if (!online) return { status: 'offline' };
  return { status: 'waiting', retryIn: Math.max(0, (retryAt ?? now) - now), error };
}

/** Where all of a topic's groups can be resumed from; undefined where none has a place. */
function oldestOf(groups: readonly Group[]): string | undefined {
  let oldest: Reader | undefined;
  for (const { reader } of groups) {
    if (reader.since === undefined) continue;
    // Of another epoch than the first, it is from before.
    if (!oldest || !covers(reader, oldest.floor)) oldest = reader;
  }
  return oldest?.since;
}

function frameOf({ topic, id, ref, text }: Draft): string {
  const head = topic === undefined ? '"broadcast"' : `"publish","topic":${JSON.stringify(topic)}`;
  return `{"action":${head},"id":${JSON.stringify(id)},"ref":"${ref}","message":${text}}`;
}

function errorOf({ code, detail, ...details }: Failure): PosthornError {
  return new PosthornError(code, detail, details);
}

function closed(): PosthornError {
  return new PosthornError('closed', 'The client is closed');
}
