/**
 * What one address may have open at this gateway, and how fast it may open more (docs/security.md, "Addresses").
 *
 * Without a proxy that is its TCP connections, whatever is done on them. Behind one, whose connections carry everybody's
 * requests: its sockets, and its requests until they are answered; sockets and event streams are opened at a rate.
 */
import { ProblemError } from '@posthorn/contracts';
import type { GatewayConfig } from '../config.js';
import { tooFast } from '../session/limits.js';
import { Buckets } from './buckets.js';
import { networkOf, Ranges } from './network.js';

/** When to come again for whom too much is open, in seconds: nobody knows when something of it ends. */
const OPEN_RETRY = 5;

type Limits = Pick<GatewayConfig, 'addressLimit' | 'addressRate' | 'addressBurst' | 'addressExempt'>;

export class Addresses {
  readonly #limit: number;
  readonly #exempt: Ranges;
  readonly #opened: Buckets;
  /** By network. Those with nothing open are not in it. */
  readonly #open = new Map<string, number>();

  constructor({ addressLimit, addressRate, addressBurst, addressExempt }: Limits) {
    this.#limit = addressLimit;
    this.#exempt = new Ranges(addressExempt);
    this.#opened = new Buckets(addressRate, addressBurst);
  }

  /** How many have something open. */
  get size(): number {
    return this.#open.size;
  }

  /**
   * Takes a place of an address, past its limit too.
   * @returns how many it has now, and what gives the place back, of which later calls change nothing; undefined for
   *   one without a limit
   */
  enter(address: string): { readonly open: number; readonly leave: () => void } | undefined {
    if (this.#exempt.includes(address)) return undefined;
    const network = networkOf(address);
    const open = (this.#open.get(network) ?? 0) + 1;
    this.#open.set(network, open);
    let isTaken = true;
    const leave = () => {
      if (isTaken) this.#leave(network);
      isTaken = false;
    };
    return { open, leave };
  }

  /** Why an address with so much open may not have it. */
  tooMany(open: number): ProblemError | undefined {
    if (open <= this.#limit) return undefined;
    return new ProblemError('rate_limited', `An address may have ${this.#limit} connections open`, {
      retryAfter: OPEN_RETRY,
    });
  }

  /** Counts an opening. Why the address may not open one now. */
  tooFast(address: string, now: number): ProblemError | undefined {
    if (this.#exempt.includes(address)) return undefined;
    const seconds = this.#opened.take(networkOf(address), now);
    return seconds > 0 ? tooFast(seconds) : undefined;
  }

  #leave(network: string): void {
    const left = this.#open.get(network)! - 1;
    if (left > 0) this.#open.set(network, left);
    else this.#open.delete(network);
  }
}
