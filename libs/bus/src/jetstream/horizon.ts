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

  constructor(jsm: JetStreamManager, stream: string, inFlight: InFlight) {
    this.#jsm = jsm;
    this.#stream = stream;
    this.#inFlight = inFlight;
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
          ({ state, cluster }) =>
            resolve({ first: state.first_seq, last: state.last_seq, leader: cluster?.leader }),
          (cause) => reject(new ProblemError('unavailable', 'The event store does not answer', { cause })),
        );
      });
    });
    return this.#next;
  }
}
