/**
 * Leaving out repeats for durable consumers (docs/adr/0011-bursts-are-read-off-the-stream.md): of events with the same
 * values the handler gets one, whichever process it comes to.
 */
import { hash } from 'node:crypto';
import { formatPosition } from '@posthorn/contracts';
import { CLAIM_AGE, type Claims } from './jetstream/claims.js';
import { type By, checkBy, memberValues } from './member-values.js';
import type { BusEvent, Delivery } from './port.js';

export interface Distinct {
  /** Events of one topic whose payloads have the same values here are repeats; one that lacks them is none. */
  readonly by: By;
  /** For how long, in milliseconds from the first of them. Default, and at most: seven days. */
  readonly ms?: number;
}

/** @throws ProblemError `request_invalid` */
export function checkDistinct({ by, ms = CLAIM_AGE }: Distinct): void {
  checkBy('distinct', { by, ms }, CLAIM_AGE);
}

export class Repeats {
  readonly #by: By;
  readonly #ms: number;
  readonly #consumer: string;
  readonly #claims: Claims;

  /** @param consumer its name on the server: what one consumer has seen is new to another */
  constructor({ by, ms = CLAIM_AGE }: Distinct, consumer: string, claims: Claims) {
    this.#by = by;
    this.#ms = ms;
    this.#consumer = consumer;
    this.#claims = claims;
  }

  /**
   * Whether an event is to be handled: it is no repeat, or it was not one when it came before. The claim is written
   * ahead of the handler, so that two processes never both handle; who holds it is redelivered until settled, so
   * that what the others leave out is not lost with a process.
   * @throws ProblemError `unavailable`
   */
  async takes(event: BusEvent, delivery: Pick<Delivery, 'storedAt'>): Promise<boolean> {
    const values = memberValues(event.message, this.#by);
    if (values === undefined) return true;
    // Values have any length and form, a key has not.
    const digest = hash('sha256', JSON.stringify([event.scope, event.path, values]), 'base64url');
    const key = `${this.#consumer}.${digest}`;
    const at = Number(delivery.storedAt / 1_000_000n);
    const mine = formatPosition(event.position);
    for (;;) {
      const held = await this.#claims.read(key);
      const [position, since] = held ? held.value.split(' ') : [];
      if (position === mine) return true;
      const later = at - Number(since);
      if (held && Math.abs(later) <= this.#ms) return false;
      // An event that is tried again after so long that another one has its place.
      if (held && later < 0) return true;
      if (await this.#claims.write(key, `${mine} ${at}`, held?.revision ?? 0)) return true;
    }
  }
}
