/** Publishes that are written from a template: only the digits of the number change. */
import { masked, maskedFrame } from './frames.mjs';
import { DIGITS } from './ledger.mjs';

/** Stands in a template wherever the number goes. */
export const PLACE = '#'.repeat(DIGITS);
const PUBLISHER_UNIT = 100_000_000;

class FrameTemplate {
  #frame;
  #head;
  /** Where in the payload digits stand. */
  #places;

  /**
   * @param {number} opcode
   * @param {string} text with {@link PLACE} wherever the number goes
   */
  constructor(opcode, text) {
    const payload = Buffer.from(text);
    this.#frame = maskedFrame(opcode, payload);
    this.#head = this.#frame.length - payload.length;
    this.#places = [...text.matchAll(new RegExp(PLACE, 'g'))].map((match) => match.index);
  }

  get length() {
    return this.#frame.length;
  }

  /**
   * @param {Buffer} target
   * @param {number} offset
   * @param {number} number
   */
  write(target, offset, number) {
    target.set(this.#frame, offset);
    for (const place of this.#places) {
      let rest = number;
      for (let at = place + DIGITS - 1; at >= place; at--) {
        target[offset + this.#head + at] = masked(48 + (rest % 10), at);
        rest = Math.floor(rest / 10);
      }
    }
  }
}

/** One socket that publishes to all topics. */
export class Publisher {
  #connection;
  #index;
  #templates;
  /** How many were published to each topic. */
  #sent;
  /** What {@link flush} will write. @type {{ template: FrameTemplate, sequence: number }[]} */
  #waiting = [];

  /**
   * @param {import('./connection.mjs').Connection} connection
   * @param {number} index
   * @param {string[]} texts one publish for each topic, as payload of a frame
   */
  constructor(connection, index, texts) {
    this.#connection = connection;
    this.#index = index;
    this.#templates = texts.map((text) => new FrameTemplate(connection.opcode, text));
    this.#sent = new Uint32Array(texts.length);
  }

  /** @param {number} topic */
  sent(topic) {
    return this.#sent[topic] ?? 0;
  }

  /**
   * Publishes at the next {@link flush}.
   * @param {number} topic
   * @returns {number} its sequence
   */
  publish(topic) {
    const sequence = this.sent(topic);
    const template = /** @type {FrameTemplate} */ (this.#templates[topic]);
    this.#waiting.push({ template, sequence });
    this.#sent[topic] = sequence + 1;
    return sequence;
  }

  /** Writes what waits, at once. */
  flush() {
    if (this.#waiting.length === 0) return;
    const bytes = Buffer.allocUnsafe(this.#waiting.reduce((sum, { template }) => sum + template.length, 0));
    let offset = 0;
    for (const { template, sequence } of this.#waiting) {
      template.write(bytes, offset, this.#index * PUBLISHER_UNIT + sequence);
      offset += template.length;
    }
    this.#waiting = [];
    this.#connection.write(bytes);
  }
}
