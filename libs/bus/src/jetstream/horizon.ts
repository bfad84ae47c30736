/** First and last sequence of a stream, asked of its leader: one question for all who ask at the same time. */
import type { JetStreamManager } from '@nats-io/jetstream';
import { ProblemError } from '@posthorn/contracts';
import type { InFlight } from './in-flight.js';

/** What a stream holds. `first` is beyond `last` where it holds nothing. */
export interface Extent {
  readonly first: number;
  readonly last: number;
  /** The name of the server that leads the stream; undefined outside a cluster. */
  readonly leader: string | undefined;
}

export class Horizon {
  readonly #jsm: JetStreamManager;
  readonly #stream: string;
  readonly #inFlight: InFlight;
  #next: Promise<Extent> | undefined;
  #leader: string | undefined;
  #known = 0;
  /** Called when an answer came from another leader than the one before. */
  onLeaderChange = (): void => {};

  constructor(jsm: JetStreamManager, stream: string, inFlight: InFlight) {
    this.#jsm = jsm;
    this.#stream = stream;
    this.#inFlight = inFlight;
  }

  /** The last sequence as the latest answer had it, 0 before the first. */
  get known(): number {
    return this.#known;
  }

  /**
   * Resolves with the last sequence at some moment after the call. The question goes out at the end of this
   * turn, behind every subscription that was made in it: NATS keeps the order of one connection, so whatever
   * is stored later is heard by them.
   * @throws ProblemError `unavailable`
   */
  async ask(): Promise<number> {
    return (await this.extent()).last;
  }

  /**
   * As {@link ask}, with the first sequence too.
   * @throws ProblemError `unavailable`
   */
  extent(): Promise<Extent> {
    this.#next ??= new Promise<Extent>((resolve, reject) => {
      setImmediate(() => {
        this.#next = undefined;
        this.#inFlight.untilLost(this.#jsm.streams.info(this.#stream)).then(
          ({ state, cluster }) => {
            resolve({ first: state.first_seq, last: state.last_seq, leader: cluster?.leader });
            this.#known = state.last_seq;
            this.#noteLeader(cluster?.leader);
          },
          (cause) => reject(new ProblemError('unavailable', 'The event store does not answer', { cause })),
        );
      });
    });
    return this.#next;
  }

  #noteLeader(leader: string | undefined): void {
    const before = this.#leader;
    this.#leader = leader ?? before;
    if (before !== this.#leader && before !== undefined) this.onLeaderChange();
  }
}
