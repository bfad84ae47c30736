/**
 * A small model of what the gateway promises (docs/protocols/courier.md), independent of the SDK: one log, and
 * connections that are given what they ask for, in the order of each topic but of no other. It forgets, refuses, and
 * ends subscriptions and tokens when told.
 */

export interface Stored {
  readonly seq: number;
  readonly topic: string;
  readonly id: string;
}

interface Sub {
  readonly wire: string;
  readonly start: number;
  /** Resumed, with nothing missing: what lies before its place its client has. */
  readonly resumed: boolean;
  readonly pattern: boolean;
  /** The end of what it missed. */
  readonly missedUpTo: number;
  /** By topic, what it has still to hand over. */
  readonly pending: Map<string, number[]>;
}

export interface Conn {
  readonly n: number;
  readonly stream: boolean;
  alive: boolean;
  readonly subs: Map<string, Sub>;
  /** Delivered above the horizon that a pong may name, by topic. */
  readonly delivered: Map<string, number>;
  from: number;
  reached: number;
  broadcasts: number[];
  missedUpTo: number;
  /** Frames to the client, in order. */
  readonly send: (frame: object) => void;
}

export const BROADCASTS = '__broadcast__';
/** Milliseconds for which a repeat is recognised. */
const DUPLICATES = 120_000;

export function takes(name: string, topic: string): boolean {
  if (topic === BROADCASTS) return name === BROADCASTS;
  if (name === '>') return true;
  if (name.endsWith('.*')) return topic.startsWith(`${name.slice(0, -2)}/`);
  return name === topic;
}

interface Cursor {
  readonly base: number;
  readonly beyond: ReadonlyMap<string, number>;
}

function parseCursor(text: string): Cursor {
  const [head, ...entries] = text.split('~');
  const base = Number(/^e-(\d+)$/.exec(head!)![1]);
  const beyond = new Map(
    entries.map((entry) => {
      const [step, ...rest] = entry.split('.');
      return [rest.join('.'), base + Number.parseInt(step!, 36)] as const;
    }),
  );
  return { base, beyond };
}

export class GatewayModel {
  readonly log: Stored[] = [];
  /** The oldest that is kept. */
  oldest = 1;
  minToken = 0;
  /** How many publishes and subscriptions are refused from now on. */
  refusals = 0;
  readonly #known = new Map<string, { seq: number; at: number }>();
  readonly #random: () => number;

  constructor(random: () => number) {
    this.#random = random;
  }

  get end(): number {
    return this.log.length;
  }

  open(n: number, stream: boolean, send: (frame: object) => void): Conn {
    return {
      n,
      stream,
      alive: true,
      subs: new Map(),
      delivered: new Map(),
      from: this.end,
      reached: this.end,
      broadcasts: [],
      missedUpTo: 0,
      send,
    };
  }

  /** Stores an event, once for each id within the duplicate window. */
  store(topic: string, id: string, now: number, conns: Iterable<Conn>): number {
    const known = this.#known.get(id);
    if (known && now - known.at < DUPLICATES) return known.seq;
    const seq = this.end + 1;
    this.log.push({ seq, topic, id });
    this.#known.set(id, { seq, at: now });
    for (const conn of conns) {
      if (!conn.alive) continue;
      if (topic === BROADCASTS) conn.broadcasts.push(seq);
      for (const sub of conn.subs.values()) if (takes(sub.wire, topic)) push(sub.pending, topic, seq);
    }
    return seq;
  }

  forget(): void {
    this.oldest += Math.floor(this.#random() * (this.end + 1 - this.oldest));
  }

  subscribe(conn: Conn, wire: string, since: string | undefined, ref: string) {
    if (this.refusals > 0) {
      this.refusals--;
      conn.send({ action: 'error', code: 'unavailable', detail: 'not now', ref });
      return;
    }
    if (wire === BROADCASTS) return this.#subscribeBroadcasts(conn, since, ref);
    if (conn.subs.has(wire)) throw new Error(`${wire} was asked for twice`);
    const cursor = since === undefined ? undefined : parseCursor(since);
    const reached = (topic: string) => cursor?.beyond.get(topic) ?? cursor?.base ?? this.end;
    const isMissed = ({ topic, seq }: Stored) => takes(wire, topic) && seq > reached(topic);
    const recovered = cursor && !this.log.some((event) => isMissed(event) && event.seq < this.oldest);
    const pending = new Map<string, number[]>();
    for (const event of this.log) {
      const isKept = event.seq >= this.oldest;
      const isDue = recovered === false ? takes(wire, event.topic) : isMissed(event);
      if (cursor && isKept && isDue) push(pending, event.topic, event.seq);
    }
    const start = recovered ? cursor!.base : cursor ? this.oldest - 1 : this.end;
    const position = recovered ? since : `e-${start}`;
    conn.send({ action: 'subscribed', topic: wire, position, ...(cursor ? { recovered } : {}), ref });
    const pattern = /[*>]/.test(wire);
    const missedUpTo = this.end;
    conn.subs.set(wire, { wire, start, resumed: recovered === true, pattern, missedUpTo, pending });
  }

  unsubscribe(conn: Conn, wire: string, ref?: string): void {
    this.#remove(conn, wire);
    conn.send({ action: 'unsubscribed', topic: wire, ...(ref === undefined ? {} : { ref }) });
  }

  /** Ends a subscription as where the store is away. */
  drop(conn: Conn, wire: string): void {
    this.#remove(conn, wire);
    conn.send({ action: 'error', code: 'unavailable', detail: 'broken' });
    conn.send({ action: 'unsubscribed', topic: wire });
  }

  /** Hands over some of what is pending. Returns whether something is left. */
  pump(conn: Conn): boolean {
    let left = false;
    while (conn.broadcasts.length > 0 && this.#random() < 0.7) {
      const seq = conn.broadcasts.shift()!;
      conn.reached = Math.max(conn.reached, seq);
      conn.send({ action: 'broadcast', id: this.log[seq - 1]!.id, position: `e-${seq}`, message: { seq } });
    }
    left ||= conn.broadcasts.length > 0;
    for (const sub of conn.subs.values()) {
      for (const [topic, seqs] of sub.pending) {
        while (seqs.length > 0 && this.#random() < 0.7) {
          const seq = seqs.shift()!;
          if (this.#isAnothers(conn, sub, topic, seq)) continue;
          const { id } = this.log[seq - 1]!;
          conn.delivered.set(topic, Math.max(seq, conn.delivered.get(topic) ?? 0));
          conn.send({ action: 'message', topic, id, position: `e-${seq}`, message: { seq } });
        }
        left ||= seqs.length > 0;
      }
    }
    return left;
  }

  pong(conn: Conn) {
    const pending = [...conn.subs.values()].flatMap((sub) =>
      [...sub.pending].flatMap(([topic, seqs]) =>
        seqs.filter((seq) => !this.#isAnothers(conn, sub, topic, seq)),
      ),
    );
    const next = Math.min(...pending, ...conn.broadcasts, this.end + 1);
    const isMissing =
      conn.broadcasts.some((seq) => seq <= conn.missedUpTo) ||
      [...conn.subs.values()].some(({ pending, missedUpTo }) =>
        [...pending.values()].flat().some((seq) => seq <= missedUpTo),
      );
    // Nor is there one, now and then, where much is in motion.
    if (isMissing || (next <= this.end && this.#random() < 0.5)) {
      conn.send({ action: 'pong' });
      return;
    }
    const base = next - 1;
    const beyond = [...conn.delivered].filter(([, seq]) => seq > base).sort(([a], [b]) => (a < b ? -1 : 1));
    const entries = beyond.map(([topic, seq]) => `~${(seq - base).toString(36)}.${topic}`);
    conn.send({ action: 'pong', position: `e-${base}${entries.join('')}` });
  }

  #subscribeBroadcasts(conn: Conn, since: string | undefined, ref: string): void {
    if (since === undefined) {
      conn.send({ action: 'subscribed', topic: BROADCASTS, position: `e-${conn.from}`, ref });
      return;
    }
    const { base } = parseCursor(since);
    const heard = (seq: number) => seq > conn.from && seq <= conn.reached;
    const missed = this.log.filter(({ topic, seq }) => topic === BROADCASTS && seq > base && !heard(seq));
    const recovered = missed.every(({ seq }) => seq >= this.oldest);
    conn.broadcasts = missed.map(({ seq }) => seq).filter((seq) => seq >= this.oldest);
    conn.missedUpTo = this.end;
    const position = recovered ? since : `e-${this.oldest - 1}`;
    conn.send({ action: 'subscribed', topic: BROADCASTS, position, recovered, ref });
  }

  /** Whether an event is another subscription's to deliver. */
  #isAnothers(conn: Conn, sub: Sub, topic: string, seq: number): boolean {
    const claims = (other: Sub) => other.resumed || seq > other.start;
    if (!sub.pattern) return false;
    const exact = conn.subs.get(topic);
    if (exact && claims(exact)) return true;
    for (const other of conn.subs.values()) {
      if (other === sub) return false;
      if (other.pattern && takes(other.wire, topic) && claims(other)) return true;
    }
    return false;
  }

  #remove(conn: Conn, wire: string): void {
    const sub = conn.subs.get(wire);
    if (!sub) return;
    conn.subs.delete(wire);
    const topics = [...sub.pending].filter(([, seqs]) => seqs.length > 0).map(([topic]) => topic);
    for (const other of [...conn.subs.values()]) {
      if (other.pattern && topics.some((topic) => takes(other.wire, topic))) this.drop(conn, other.wire);
    }
  }
}

function push(pending: Map<string, number[]>, topic: string, seq: number): void {
  const seqs = pending.get(topic);
  if (seqs) seqs.push(seq);
  else pending.set(topic, [seq]);
}
