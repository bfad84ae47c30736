/**
 * What one connection has received: every message once, in order, for each source. A message's number is its
 * publisher and how many that one sent to the topic before; it stands in ten digits at the payload's end, where it is
 * found without parsing.
 */

/** Digits of a number: two for the publisher, eight for the sequence. */
export const DIGITS = 10;
const PUBLISHER_DIGITS = 2;
/** A payload ends in its number, a quotation mark and a brace. */
const CLOSING = 2;
const ZERO = 48;

/** How a payload of so many bytes looks; the `#` are where the number goes. @param {number} size */
export function payloadTemplate(size) {
  const [open, close] = ['{"pad":"', `","seq":"${'#'.repeat(DIGITS)}"}`];
  return open + 'x'.repeat(Math.max(0, size - open.length - close.length)) + close;
}

/**
 * The publisher of the payload that ends at `end`.
 * @param {Uint8Array} bytes
 * @param {number} end exclusive
 */
export function publisherOf(bytes, end) {
  return number(bytes, end - CLOSING - DIGITS, PUBLISHER_DIGITS);
}

/**
 * The sequence of the payload that ends at `end`; NaN where there is none.
 * @param {Uint8Array} bytes
 * @param {number} end exclusive
 */
export function sequenceOf(bytes, end) {
  return number(bytes, end - CLOSING - DIGITS + PUBLISHER_DIGITS, DIGITS - PUBLISHER_DIGITS);
}

/**
 * @param {Uint8Array} bytes
 * @param {number} start
 * @param {number} digits
 */
function number(bytes, start, digits) {
  let value = 0;
  for (let index = start; index < start + digits; index++) {
    const digit = (bytes[index] ?? 0) - ZERO;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
  }
  return value;
}

export class Ledger {
  /** Messages that came for the first time. */
  received = 0;
  /** Messages that had come before. */
  doubled = 0;
  /** Messages that came after a later one. */
  late = 0;
  /** The lowest sequence of each publisher that has not been passed. */
  #next;
  /** @type {Set<string>} passed over, and not come since */
  #gaps = new Set();

  /** @param {number} publishers */
  constructor(publishers) {
    this.#next = new Uint32Array(publishers);
  }

  /**
   * @param {number} publisher
   * @param {number} sequence
   * @returns {boolean} whether it came for the first time
   */
  take(publisher, sequence) {
    const next = this.#next[publisher];
    if (sequence === next) this.#next[publisher] = sequence + 1;
    else if (!this.#outOfTurn(publisher, sequence, next)) return false;
    this.received++;
    return true;
  }

  /**
   * How many of the first `sent` of a publisher have not come.
   * @param {number} publisher
   * @param {number} sent
   */
  missing(publisher, sent) {
    let gaps = 0;
    for (const gap of this.#gaps) if (gap.startsWith(`${publisher}:`)) gaps++;
    return gaps + Math.max(0, sent - (this.#next[publisher] ?? 0));
  }

  /**
   * @param {number} publisher
   * @param {number} sequence
   * @param {number | undefined} next undefined for a publisher that there is not
   */
  #outOfTurn(publisher, sequence, next) {
    if (next === undefined || Number.isNaN(sequence))
      throw new Error('A message without a number of ours came');
    if (sequence > next) {
      for (let gap = next; gap < sequence; gap++) this.#gaps.add(`${publisher}:${gap}`);
      this.#next[publisher] = sequence + 1;
      return true;
    }
    if (this.#gaps.delete(`${publisher}:${sequence}`)) {
      this.late++;
      return true;
    }
    this.doubled++;
    return false;
  }
}
