/** The last sequence of a stream, asked of its leader, with one question for all who ask at the same time. */
import type { JetStreamManager } from '@nats-io/jetstream';
import { ProblemError } from '@posthorn/contracts';
import type { InFlight } from './in-flight.js';

export class Horizon {
  readonly #jsm: JetStreamManager;
  readonly #stream: string;
  readonly #inFlight: InFlight;
  #next: Promise<number> | undefined;

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
  ask(): Promise<number> {
    this.#next ??= new Promise<number>((resolve, reject) => {
      setImmediate(() => {
        this.#next = undefined;
        this.#inFlight.untilLost(this.#jsm.streams.info(this.#stream)).then(
          (info) => resolve(info.state.last_seq),
          (cause) => reject(new ProblemError('unavailable', 'The event store does not answer', { cause })),
        );
      });
    });
    return this.#next;
  }
}
