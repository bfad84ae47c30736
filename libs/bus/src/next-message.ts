/**
 * One question for the next event, as the gateway's polls ask it (docs/protocols/tryton.md): the oldest after a cursor
 * on any of several filters, at once where there is one, else as soon as it comes. Live copies only say when to look;
 * what is answered was read of the stream's leader, up to one place on all filters.
 */
import { type Cursor, formatCursor, type Position, ProblemError, reachedBy } from '@posthorn/contracts';
import type { JetStreamBus } from './jetstream/jetstream-bus.js';
import type { BusEvent, EphemeralEvent } from './port.js';

export interface NextMessageOptions {
  readonly audience: string;
  /** Path filters. */
  readonly filters: readonly string[];
  /** Undefined: what was stored a moment ago. */
  readonly since: Cursor | undefined;
  /** How far back that moment is, in milliseconds. */
  readonly recent: number;
  /** Ends the question without an event. */
  readonly signal: AbortSignal;
}

export interface NextMessage {
  /** Undefined where none came before it was ended. */
  readonly event: EphemeralEvent | undefined;
  /** The cursor of whoever has it, as text. */
  readonly place: string | undefined;
  /** False where the cursor that it came with was none of this stream, or reaches too far back. */
  readonly recovered: boolean;
}

/** @throws ProblemError `unavailable` */
export async function nextMessage(bus: JetStreamBus, options: NextMessageOptions): Promise<NextMessage> {
  const question = new Question(bus, options);
  const { signal } = options;
  let end = () => {};
  const ended = new Promise<NextMessage>((resolve) => {
    end = () => resolve({ event: undefined, place: undefined, recovered: question.recovered });
  });
  signal.addEventListener('abort', end);
  try {
    if (signal.aborted) end();
    const answer = question.answer();
    // It goes on where the question was ended, and may fail then.
    answer.catch(() => {});
    return await Promise.race([answer, ended]);
  } finally {
    signal.removeEventListener('abort', end);
    question.close();
  }
}

class Question {
  recovered = true;
  readonly #bus: JetStreamBus;
  readonly #options: NextMessageOptions;
  readonly #subscriptions: { close(): void }[] = [];
  #closed = false;
  /** The first of those that are stored nowhere. */
  #passing: EphemeralEvent | undefined;
  #heard = false;
  #wake = () => {};

  constructor(bus: JetStreamBus, options: NextMessageOptions) {
    this.#bus = bus;
    this.#options = options;
  }

  async answer(): Promise<NextMessage> {
    await this.#listen();
    for (let cursor = await this.#start(); ; ) {
      this.#heard = false;
      const until = await this.#bus.horizon('global');
      if (until.epoch !== cursor.epoch) throw new ProblemError('unavailable', 'The event store was replaced');
      const event = await this.#first(cursor, until);
      // Nothing else is stored up to there on any of the filters.
      cursor = completed(cursor, event?.position ?? until);
      const found = event ?? this.#passing;
      if (found) return { event: found, place: formatCursor(cursor), recovered: this.recovered };
      if (this.#closed) return { event: undefined, place: undefined, recovered: this.recovered };
      if (!this.#heard) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  close(): void {
    this.#closed = true;
    for (const subscription of this.#subscriptions) subscription.close();
    this.#wake();
  }

  async #listen(): Promise<void> {
    const { audience, filters } = this.#options;
    const hear = () => {
      this.#heard = true;
      this.#wake();
    };
    const live = filters.map((filter) => this.#bus.live({ audience, scope: 'global', filter }, hear));
    const ephemeral = filters.map((filter) =>
      this.#bus.ephemeral({ audience, filter }, (event) => {
        this.#passing ??= event;
        hear();
      }),
    );
    this.#subscriptions.push(...live, ...ephemeral);
    await Promise.all(live.map(({ started }) => started));
  }

  async #start(): Promise<Cursor> {
    const { since, recent } = this.#options;
    if (since && (await this.#isKept(since))) return since;
    this.recovered = since === undefined;
    return this.#bus.recently('global', recent);
  }

  /** Whether everything after a cursor can still be read. */
  async #isKept(since: Cursor): Promise<boolean> {
    const { audience, filters } = this.#options;
    const until = await this.#bus.horizon('global');
    const kept = filters.map(async (filter) => {
      const history = await this.#bus.history({ audience, scope: 'global', filter }, since, until);
      history.close();
      return history.recovered;
    });
    return !(await Promise.all(kept)).includes(false);
  }

  async #first(since: Cursor, until: Position): Promise<BusEvent | undefined> {
    const { audience, filters } = this.#options;
    const firsts = await Promise.all(
      filters.map((filter) => this.#bus.next({ audience, scope: 'global', filter }, since)),
    );
    let first: BusEvent | undefined;
    for (const found of firsts) {
      const event = found?.event;
      if (!event || (first && first.position.sequence <= event.position.sequence)) continue;
      first = event;
    }
    if (!first || first.position.sequence <= until.sequence) return first;
    // Another filter was read before it was stored, and may have one by now that is older.
    this.#heard = true;
    return undefined;
  }
}

/** The cursor of whoever has everything up to a place, and what was beyond it before. */
function completed(cursor: Cursor, { epoch, sequence: complete }: Position): Cursor {
  const sequence = Math.max(cursor.sequence, complete);
  const beyond = [...(cursor.beyond ?? [])].filter(([path]) => reachedBy(cursor, path) > sequence);
  return beyond.length > 0 ? { epoch, sequence, beyond: new Map(beyond) } : { epoch, sequence };
}
