/**
 * WebSocket frames as bytes (RFC 6455, section 5.2), for a client that must cost as little as possible: frames are
 * read where they lie in the buffer of the TCP stream, and only one that is cut between two reads is copied.
 */

export const OPCODE = /** @type {const} */ ({
  continuation: 0,
  text: 1,
  binary: 2,
  close: 8,
  ping: 9,
  pong: 10,
});

/** The mask of every frame sent from here. Servers have to undo it whatever it is. */
export const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

/**
 * The place of one frame's payload; the bytes are good until the callback returns.
 * @callback FrameListener
 * @param {number} opcode
 * @param {Uint8Array} bytes
 * @param {number} start
 * @param {number} end exclusive
 */

/** Finds the frames in a server's TCP stream, however it is cut. */
export class FrameReader {
  /** @type {FrameListener} */
  #onFrame;
  /** A frame that is not complete yet, from its first byte. */
  #cut = Buffer.alloc(0);
  #cutLength = 0;

  /** @param {FrameListener} onFrame */
  constructor(onFrame) {
    this.#onFrame = onFrame;
  }

  /**
   * Takes what was read next.
   * @param {Uint8Array} bytes
   * @param {number} [start]
   * @param {number} [end] exclusive
   * @throws where a frame is masked, which a server's never is
   */
  read(bytes, start = 0, end = bytes.length) {
    let at = this.#cutLength > 0 ? this.#complete(bytes, start, end) : start;
    while (end - at >= 2) {
      const head = headLength(bytes, at);
      if (end - at < head) break;
      const payload = at + head;
      const next = payload + payloadLength(bytes, at, head);
      if (next > end) break;
      this.#onFrame((bytes[at] ?? 0) & 0x0f, bytes, payload, next);
      at = next;
    }
    if (at < end) this.#keep(bytes, at, end);
  }

  /**
   * Goes on with the frame that was cut.
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {number} end
   * @returns {number} where the next frame begins
   */
  #complete(bytes, start, end) {
    let at = start;
    for (;;) {
      const head = this.#cutLength < 2 ? 2 : headLength(this.#cut, 0);
      const headComplete = this.#cutLength >= head && this.#cutLength >= 2;
      const wanted = headComplete ? head + payloadLength(this.#cut, 0, head) : head;
      if (headComplete && this.#cutLength === wanted) {
        this.#cutLength = 0;
        this.#onFrame((this.#cut[0] ?? 0) & 0x0f, this.#cut, head, wanted);
        return at;
      }
      if (at === end) return end;
      const taken = Math.min(wanted - this.#cutLength, end - at);
      this.#keep(bytes, at, at + taken, wanted);
      at += taken;
    }
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {number} end
   * @param {number} [capacity] bytes that will be needed
   */
  #keep(bytes, start, end, capacity = 0) {
    const length = this.#cutLength + end - start;
    if (this.#cut.length < length) {
      const larger = Buffer.allocUnsafe(Math.max(length, capacity, 512));
      larger.set(this.#cut.subarray(0, this.#cutLength));
      this.#cut = larger;
    }
    this.#cut.set(bytes.subarray(start, end), this.#cutLength);
    this.#cutLength = length;
  }
}

/**
 * @param {Uint8Array} bytes at least two from `at`
 * @param {number} at
 */
function headLength(bytes, at) {
  const length = bytes[at + 1] ?? 0;
  if (length < 126) return 2;
  if (length > 127) throw new Error('The server sent a masked frame');
  return length === 126 ? 4 : 10;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 * @param {number} head length of the head
 */
function payloadLength(bytes, at, head) {
  if (head === 2) return bytes[at + 1] ?? 0;
  let length = 0;
  for (let index = at + 2; index < at + head; index++) length = length * 256 + (bytes[index] ?? 0);
  return length;
}

/**
 * One frame as a client sends it.
 * @param {number} opcode
 * @param {Uint8Array} payload at most 65,535 bytes
 */
export function maskedFrame(opcode, payload) {
  const { length } = payload;
  const head =
    length < 126
      ? Buffer.from([0x80 | opcode, 0x80 | length])
      : Buffer.from([0x80 | opcode, 0x80 | 126, length >> 8, length & 0xff]);
  const frame = Buffer.concat([head, MASK, payload]);
  const start = head.length + MASK.length;
  for (let index = 0; index < length; index++) frame[start + index] = masked(payload[index] ?? 0, index);
  return frame;
}

/**
 * @param {number} byte
 * @param {number} index its place in the payload
 */
export function masked(byte, index) {
  return byte ^ (MASK[index & 3] ?? 0);
}
