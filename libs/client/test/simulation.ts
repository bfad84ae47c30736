/** A machine, a network that misbehaves, and the model of a gateway, in a time of their own; and what must hold. */
import { PosthornError } from '../src/error.js';
import type { ServerFrame } from '../src/frame.js';
import type { Effect } from '../src/machine/effect.js';
import type { Draft, Event } from '../src/machine/event.js';
import { newState, type State } from '../src/machine/state.js';
import { transition } from '../src/machine/transition.js';
import { wakeAt } from '../src/machine/wake.js';
import type { Gap, Receipt, Transport } from '../src/types.js';
import { BROADCASTS, type Conn, GatewayModel, takes } from './gateway-model.js';

export type Step =
  | { readonly kind: 'store' | 'publish'; readonly topic: string }
  | { readonly kind: 'broadcast' | 'drain' | 'forget' | 'token ends' }
  | { readonly kind: 'subscribe'; readonly topic: string; readonly rewind: boolean }
  | { readonly kind: 'unsubscribe' | 'drop subscription'; readonly which: number }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'cut'; readonly code: number }
  | { readonly kind: 'stall' | 'block sockets' | 'outage' | 'tokens fail'; readonly on: boolean }
  | { readonly kind: 'refuse'; readonly times: number }
  | { readonly kind: 'page'; readonly visible: boolean }
  | { readonly kind: 'network'; readonly online: boolean };

type Untimed<E> = E extends unknown ? Omit<E, 'time'> : never;

interface Heard {
  readonly number: number;
  readonly topic: string;
  /** Everything above has to come. Undefined until it has begun. */
  from: number | undefined;
  ended: boolean;
  readonly seqs: { readonly topic: string; readonly seq: number }[];
  readonly gaps: Gap[];
}

interface Published {
  readonly id: string;
  readonly isBroadcast: boolean;
  readonly outcomes: (Receipt | { readonly code: string })[];
  refused: boolean;
}

/** What is on its way, in one direction of one connection: in order, each with its time. */
interface Pipe {
  readonly conn: Conn;
  readonly down: { readonly at: number; readonly frame: object }[];
  readonly up: { readonly at: number; readonly text: string }[];
  pongAt: number;
  pumpAt: number;
}

export class SimulatedClient {
  readonly #state: State;
  readonly #gateway: GatewayModel;
  readonly #pipes = new Map<number, Pipe>();
  readonly #later: { at: number; run: () => void }[] = [];
  readonly #heard: Heard[] = [];
  readonly #published = new Map<string, Published>();
  readonly #sent = new Map<number, string[]>();
  readonly #on = { stall: false, 'block sockets': false, outage: false, 'tokens fail': false };
  #now = 1;
  #count = 0;
  #seed: number;
  #token = '';

  constructor(seed: number, transports: readonly Transport[]) {
    this.#seed = seed;
    this.#gateway = new GatewayModel(() => this.#random());
    this.#state = newState({
      seed,
      transports,
      publishTimeout: 90_000,
      queueLimit: 1_000,
      frameLimit: 65_536,
    });
    this.#happen({ type: 'start' });
  }

  take(step: Step): void {
    switch (step.kind) {
      case 'store':
        this.#gateway.store(step.topic, `other-${++this.#count}`, this.#now, this.#conns());
        break;
      case 'publish':
        this.#publish(step.topic);
        break;
      case 'broadcast':
        if (this.#random() < 0.5) this.#publish(undefined);
        else this.#gateway.store(BROADCASTS, `other-${++this.#count}`, this.#now, this.#conns());
        break;
      case 'subscribe':
        this.#subscribe(step.topic, step.rewind);
        break;
      case 'unsubscribe': {
        const heard = this.#heard[step.which % Math.max(1, this.#heard.length)];
        if (!heard || heard.ended) break;
        heard.ended = true;
        this.#happen({ type: 'unsubscribe', listener: heard.number });
        break;
      }
      case 'wait':
        this.#run(step.ms);
        break;
      case 'cut':
        for (const pipe of this.#pipes.values()) this.#cut(pipe, step.code);
        break;
      case 'drain':
        for (const pipe of this.#pipes.values()) {
          this.#down(pipe, { action: 'reconnect', after_ms: Math.floor(this.#random() * 2_000) });
          this.#end(pipe, 1012);
        }
        break;
      case 'forget':
        this.#gateway.forget();
        break;
      case 'token ends':
        this.#gateway.minToken++;
        for (const pipe of this.#pipes.values()) {
          this.#down(pipe, { action: 'error', code: 'token_expired', detail: 'ended' });
          this.#end(pipe, 4401);
        }
        break;
      case 'drop subscription':
        for (const { conn } of this.#pipes.values()) {
          const wires = [...conn.subs.keys()];
          const wire = wires[step.which % Math.max(1, wires.length)];
          if (wire && conn.alive) this.#gateway.drop(conn, wire);
        }
        break;
      case 'refuse':
        this.#gateway.refusals = step.times;
        break;
      case 'page':
        this.#happen({ type: 'page', visible: step.visible });
        break;
      case 'network':
        this.#happen({ type: 'network', online: step.online });
        break;
      default:
        this.#on[step.kind] = step.on;
    }
  }

  /** Everything works again, and has the time to settle. */
  calmDown(): void {
    Object.assign(this.#on, { stall: false, 'block sockets': false, outage: false, 'tokens fail': false });
    this.#gateway.refusals = 0;
    this.#happen({ type: 'page', visible: true });
    this.#happen({ type: 'network', online: true });
    this.#run(200_000);
    for (const topic of ['a/0', 'a/1', 'b', BROADCASTS]) {
      this.#gateway.store(topic, `last-${topic}`, this.#now, this.#conns());
    }
    this.#run(30_000);
  }

  /** Throws where one of the invariants does not hold. */
  check(): void {
    const { log, oldest } = this.#gateway;
    for (const { topic: name, from, ended, seqs, gaps } of this.#heard) {
      const told = Math.max(0, ...gaps.map(({ position }) => Number(position!.split('-')[1])));
      for (const topic of ['a/0', 'a/1', 'b', BROADCASTS]) {
        const got = seqs.filter((one) => one.topic === topic).map(({ seq }) => seq);
        got.forEach((seq, i) => {
          if (i > 0 && seq <= got[i - 1]!) throw new Error(`I1 I2: ${name}: ${seq} after ${got[i - 1]}`);
        });
        if (from === undefined || !takes(name, topic)) continue;
        const upTo = ended ? (got.at(-1) ?? 0) : Infinity;
        for (const event of log) {
          if (event.topic !== topic || event.seq <= from || event.seq > upTo || got.includes(event.seq))
            continue;
          if (event.seq <= told && event.seq < oldest) continue;
          throw new Error(
            `I3: ${name} of ${from} misses ${event.seq} on ${topic}, has ${got}, was told of ${told}`,
          );
        }
      }
    }
    for (const [ref, { id, outcomes }] of this.#published) {
      if (outcomes.length !== 1) throw new Error(`I4: ${ref} ended ${outcomes.length} times`);
      const stored = log.filter((event) => event.id === id).length;
      const [outcome] = outcomes;
      if (stored > 1) throw new Error(`I5: ${ref} is stored ${stored} times`);
      if ('position' in outcome! && stored !== 1)
        throw new Error(`I5: ${ref} was accepted and is not stored`);
      if ('code' in outcome! && outcome.code === 'unsent' && stored > 0)
        throw new Error(`I5: ${ref} was sent`);
    }
    for (const refs of this.#sent.values()) {
      for (const isBroadcast of [false, true]) {
        const firm = refs
          .map((ref) => this.#published.get(ref)!)
          .filter((one) => !one.refused && one.isBroadcast === isBroadcast);
        const order = firm.map(({ id }) => Number(id.split('-')[1]));
        order.forEach((ref, i) => {
          if (i > 0 && ref <= order[i - 1]!) throw new Error(`I6: ${ref} was sent after ${order[i - 1]}`);
        });
      }
    }
  }

  close(): void {
    this.#publish('a/0');
    this.#happen({ type: 'close' });
    const alive = [...this.#pipes.values()].filter(({ conn }) => conn.alive);
    if (alive.length > 0) throw new Error('I9: a connection is left');
    if (wakeAt(this.#state, this.#now) !== Infinity) throw new Error('I9: a timer is left');
    if (transition(this.#state, { type: 'tick', time: this.#now }).length > 0)
      throw new Error('I9: it goes on');
    for (const [ref, { outcomes }] of this.#published) {
      if (outcomes.length !== 1) throw new Error(`I4: ${ref} ended ${outcomes.length} times`);
    }
  }

  #subscribe(topic: string, rewind: boolean): void {
    const { end } = this.#gateway;
    const number = ++this.#count;
    const since = rewind ? Math.floor(this.#random() * (end + 1)) : undefined;
    this.#heard.push({ number, topic, from: since, ended: false, seqs: [], gaps: [] });
    const place = since === undefined ? {} : { since: `e-${since}` };
    this.#happen({ type: 'subscribe', topic, listener: number, ...place });
  }

  #publish(topic: string | undefined): void {
    const ref = String(++this.#count);
    const id = `own-${ref}`;
    this.#published.set(ref, { id, isBroadcast: topic === undefined, outcomes: [], refused: false });
    const publish: Draft = { ref, topic, id, text: '{}', bytes: 100, repeat: true };
    this.#happen({ type: 'publish', publish });
  }

  #happen(event: Untimed<Event>): void {
    const effects = transition(this.#state, { ...event, time: this.#now } as Event);
    for (const effect of effects) this.#perform(effect);
  }

  #perform(effect: Effect) {
    switch (effect.do) {
      case 'token':
        return this.#after(() => this.#giveToken(effect.n, effect.not));
      case 'sign':
        return this.#after(() => {
          const error = this.#failureOf(effect.token);
          if (error) this.#happen({ type: 'failed', n: effect.n, error });
          else this.#happen({ type: 'key', n: effect.n, key: effect.token });
        });
      case 'socket':
      case 'stream':
        return this.#after(() => this.#open(effect));
      case 'send': {
        const pipe = this.#pipes.get(effect.n);
        if (pipe?.conn.alive) pipe.up.push({ at: this.#delay(pipe.up), text: effect.text });
        return;
      }
      case 'drop': {
        const pipe = this.#pipes.get(effect.n);
        if (pipe) pipe.conn.alive = false;
        this.#pipes.delete(effect.n);
        return;
      }
      case 'post':
        return this.#after(() => this.#post(effect.publish));
      case 'deliver':
        for (const heard of this.#of(effect.listeners)) {
          const { seq } = effect.message as { seq: number };
          heard.seqs.push({ topic: effect.info.topic, seq });
        }
        return;
      case 'ready':
        for (const heard of this.#of(effect.listeners)) heard.from ??= this.#gateway.end;
        return;
      case 'gap':
        for (const heard of this.#of(effect.listeners)) heard.gaps.push(effect.gap);
        return;
      case 'ended':
        for (const heard of this.#of(effect.listeners)) {
          if (effect.error.code !== 'closed')
            throw new Error(`${heard.topic} ended: ${effect.error.message}`);
        }
        return;
      case 'accepted':
        this.#published.get(effect.ref)!.outcomes.push(effect.receipt);
        return;
      case 'rejected':
        this.#published.get(effect.ref)!.outcomes.push({ code: effect.error.code });
    }
  }

  #of(listeners: readonly number[]): Heard[] {
    return this.#heard.filter(({ number }) => listeners.includes(number));
  }

  #giveToken(n: number, not: string | undefined): void {
    if (this.#on['tokens fail']) {
      // It fails, or never comes back.
      if (this.#random() < 0.5)
        this.#happen({ type: 'failed', n, error: new PosthornError('token_failed', '') });
      return;
    }
    if (this.#token === '' || this.#token === not)
      this.#token = `t${this.#gateway.minToken}.${++this.#count}`;
    this.#happen({ type: 'token', n, token: this.#token });
  }

  #failureOf(token: string) {
    if (this.#on.outage) return new PosthornError('network', '');
    const isGood = Number(token.slice(1).split('.')[0]) >= this.#gateway.minToken;
    return isGood ? undefined : new PosthornError('token_expired', '', { status: 401 });
  }

  #open(effect: Effect & { do: 'socket' | 'stream' }) {
    const { n } = effect;
    const stream = effect.do === 'stream';
    const token = stream ? effect.token : effect.key;
    const error = this.#failureOf(token);
    if (!stream && (error || this.#on['block sockets'])) return this.#happen({ type: 'gone', n, code: 1006 });
    if (error) return this.#happen({ type: 'failed', n, error });
    const conn = this.#gateway.open(n, stream, (frame) => this.#down(pipe, frame));
    const pipe: Pipe = { conn, down: [], up: [], pongAt: stream ? this.#now + 15_000 : Infinity, pumpAt: 0 };
    this.#pipes.set(n, pipe);
    conn.send({ action: 'welcome', connection: `c${n}`, audience: 'acme', expires: null });
    if (!stream) return;
    for (const { topic, since, ref } of effect.subscriptions)
      this.#gateway.subscribe(conn, topic, since, ref);
  }

  #post({ ref, topic = BROADCASTS, id }: Draft): void {
    const refuse = (code: 'network' | 'unavailable') => {
      if (code === 'unavailable') this.#published.get(ref)!.refused = true;
      this.#happen({ type: 'refused', ref, error: new PosthornError(code, '') });
    };
    if (this.#on.outage) {
      refuse('network');
      return;
    }
    if (this.#gateway.refusals > 0) {
      this.#gateway.refusals--;
      refuse('unavailable');
      return;
    }
    const seq = this.#gateway.store(topic, id, this.#now, this.#conns());
    // Stored, and the answer is lost.
    if (this.#random() < 0.1) refuse('network');
    else this.#happen({ type: 'posted', ref, receipt: { id, position: `e-${seq}` } });
  }

  /** A frame from the client has reached the gateway. */
  #reached(conn: Conn, text: string) {
    const frame = JSON.parse(text);
    switch (frame.action) {
      case 'subscribe':
        return this.#gateway.subscribe(conn, frame.topic, frame.since, frame.ref);
      case 'unsubscribe':
        return this.#gateway.unsubscribe(conn, frame.topic, frame.ref);
      case 'ping':
        return this.#gateway.pong(conn);
      case 'publish':
      case 'broadcast': {
        const { ref, id, topic = BROADCASTS } = frame;
        const refs = this.#sent.get(conn.n) ?? [];
        this.#sent.set(conn.n, refs);
        if (!refs.includes(ref)) refs.push(ref);
        if (this.#gateway.refusals > 0) {
          this.#gateway.refusals--;
          this.#published.get(ref)!.refused = true;
          const code = this.#random() < 0.5 ? 'unavailable' : 'rate_limited';
          return conn.send({ action: 'error', code, detail: '', ref });
        }
        const seq = this.#gateway.store(topic, id, this.#now, this.#conns());
        return conn.send({ action: 'published', topic, id, position: `e-${seq}`, ref });
      }
    }
  }

  /** The connection breaks: what is on its way is lost, from some byte on. */
  #cut(pipe: Pipe, code: number): void {
    pipe.up.splice(Math.floor(this.#random() * (pipe.up.length + 1)));
    // One that has ended hears nothing any more.
    for (const { text } of pipe.up.splice(0)) if (pipe.conn.alive) this.#reached(pipe.conn, text);
    pipe.down.splice(Math.floor(this.#random() * (pipe.down.length + 1)));
    this.#end(pipe, code);
  }

  #end(pipe: Pipe, code: number): void {
    if (!pipe.conn.alive) return;
    pipe.conn.alive = false;
    pipe.down.push({ at: this.#delay(pipe.down), frame: { gone: code } });
  }

  #down(pipe: Pipe, frame: object): void {
    if (pipe.conn.alive) pipe.down.push({ at: this.#delay(pipe.down), frame });
  }

  #delay(before: readonly { readonly at: number }[]): number {
    return Math.max(before.at(-1)?.at ?? 0, this.#now + 1 + Math.floor(this.#random() * 40));
  }

  #after(run: () => void): void {
    this.#later.push({ at: this.#now + 1 + Math.floor(this.#random() * 100), run });
  }

  #conns(): Conn[] {
    return [...this.#pipes.values()].map(({ conn }) => conn);
  }

  #run(ms: number): void {
    const end = this.#now + ms;
    for (let turns = 0; ; turns++) {
      if (turns > 200_000) throw new Error('it never comes to rest');
      const at = Math.min(this.#next(), end);
      this.#now = Math.max(this.#now, at);
      if (at >= end) return;
      this.#work();
      if (wakeAt(this.#state, this.#now) <= this.#now) this.#happen({ type: 'tick' });
    }
  }

  #next(): number {
    let at = wakeAt(this.#state, this.#now);
    for (const { at: due } of this.#later) at = Math.min(at, due);
    if (this.#on.stall) return at;
    for (const { conn, down, up, pongAt, pumpAt } of this.#pipes.values()) {
      at = Math.min(at, down[0]?.at ?? Infinity, up[0]?.at ?? Infinity);
      if (conn.alive) at = Math.min(at, pongAt, this.#isPending(conn) ? pumpAt : Infinity);
    }
    return at;
  }

  #isPending({ broadcasts, subs }: Conn): boolean {
    return (
      broadcasts.length > 0 ||
      [...subs.values()].some(({ pending }) => [...pending.values()].some(({ length }) => length > 0))
    );
  }

  /** Does what is due now. */
  #work(): void {
    for (const one of this.#later.filter(({ at }) => at <= this.#now)) {
      this.#later.splice(this.#later.indexOf(one), 1);
      one.run();
    }
    if (this.#on.stall) return;
    for (const [n, pipe] of [...this.#pipes]) {
      while (pipe.up[0] && pipe.up[0].at <= this.#now) {
        const { text } = pipe.up.shift()!;
        if (pipe.conn.alive) this.#reached(pipe.conn, text);
      }
      if (pipe.conn.alive && this.#now >= pipe.pumpAt) {
        this.#gateway.pump(pipe.conn);
        pipe.pumpAt = this.#now + 5;
      }
      if (pipe.conn.alive && this.#now >= pipe.pongAt) {
        this.#gateway.pong(pipe.conn);
        pipe.pongAt = this.#now + 15_000;
      }
      while (pipe.down[0] && pipe.down[0].at <= this.#now && this.#pipes.get(n) === pipe) {
        const { frame } = pipe.down.shift()!;
        if ('gone' in frame) {
          this.#pipes.delete(n);
          this.#happen({ type: 'gone', n, code: frame.gone as number });
        } else this.#happen({ type: 'frame', n, frame: frame as ServerFrame });
      }
    }
  }

  #random(): number {
    this.#seed = (Math.imul(this.#seed, 1_664_525) + 1_013_904_223) | 0;
    return (this.#seed >>> 0) / 4_294_967_296;
  }
}
