/** The generator's end of a socket, in the two languages that are spoken to the servers under test. */
import { connect } from 'node:net';
import { FrameReader, maskedFrame, OPCODE } from './frames.mjs';

/**
 * @typedef {object} Target where a server listens
 * @property {'courier' | 'nats'} dialect
 * @property {number} port
 * @property {string} path
 */

/**
 * @typedef {object} ConnectionListener
 * @property {(bytes: Uint8Array, end: number) => void} message a message's payload ends there
 * @property {(bytes: Uint8Array, end: number) => void} acknowledged the answer to a publish ends there, in its `ref`
 * @property {() => void} read everything that was read is taken
 * @property {(why: string) => void} closed
 * @property {(why: string) => void} refused
 */

/** One for all: what is in it is taken before the next read. */
const readBuffer = Buffer.allocUnsafe(256 * 1024);
const HEAD_END = '\r\n\r\n';

/**
 * @param {Target} target
 * @param {ConnectionListener} listener
 */
export function openConnection(target, listener) {
  return target.dialect === 'nats'
    ? new NatsConnection(target, listener)
    : new CourierConnection(target, listener);
}

export class Connection {
  /** @type {import('node:net').Socket} */
  #socket;
  #reader = new FrameReader((opcode, bytes, start, end) => this.#frame(opcode, bytes, start, end));
  /** The answer to the upgrade as far as it came; undefined once it is complete. @type {string | undefined} */
  #head = '';
  #closed = false;
  /** Whether the position of what comes is remembered. */
  follows = false;
  /** Where the subscription stands. @type {string | undefined} */
  position;
  /** @type {() => void} */
  #resolve = () => {};
  /** @type {(error: Error) => void} */
  #reject = () => {};

  /**
   * @param {Target} target
   * @param {ConnectionListener} listener
   */
  constructor({ port, path }, listener) {
    this.listener = listener;
    this.#socket = connect({
      host: '127.0.0.1',
      port,
      noDelay: true,
      onread: {
        buffer: readBuffer,
        callback: (length, bytes) => {
          this.#read(bytes, length);
          return true;
        },
      },
    });
    this.#socket.on('error', (error) => this.#end(error.message));
    this.#socket.on('close', () => this.#end('the stream ended'));
    this.#socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
  }

  /** Resolves when the other side has done what was asked for last. */
  answered() {
    return /** @type {Promise<void>} */ (
      new Promise((resolve, reject) => {
        this.#resolve = resolve;
        this.#reject = reject;
      })
    );
  }

  /** Begins a subscription. @param {string} _topic @param {string} [_since] @returns {Promise<void>} */
  subscribe(_topic, _since) {
    throw new Error('A language says how');
  }

  /**
   * A publish as a frame's payload.
   * @param {string} _topic
   * @param {string} _payload
   * @param {string} [_ref] asks for an acknowledgement under this name
   * @returns {string}
   */
  publishText(_topic, _payload, _ref) {
    throw new Error('A language says how');
  }

  /** @returns {number} */
  get opcode() {
    return OPCODE.text;
  }

  /** @param {Uint8Array} bytes */
  write(bytes) {
    this.#socket.write(bytes);
  }

  /** @param {string} text */
  send(text) {
    this.write(maskedFrame(this.opcode, Buffer.from(text)));
  }

  /** Ends the connection without telling the listener. */
  destroy() {
    this.#closed = true;
    this.#socket.destroy();
  }

  /** The upgrade is done. */
  upgraded() {
    this.done();
  }

  done() {
    this.#resolve();
  }

  /** @param {Uint8Array} _bytes @param {number} _start @param {number} _end */
  data(_bytes, _start, _end) {}

  /**
   * @param {Uint8Array} bytes
   * @param {number} length
   */
  #read(bytes, length) {
    if (this.#head === undefined) this.#reader.read(bytes, 0, length);
    else this.#readHead(bytes, length);
    this.listener.read();
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} length
   */
  #readHead(bytes, length) {
    const head = this.#head + Buffer.from(bytes.subarray(0, length)).toString('latin1');
    const end = head.indexOf(HEAD_END);
    if (end === -1) {
      this.#head = head;
      return;
    }
    if (!head.startsWith('HTTP/1.1 101 '))
      return this.#end(`the upgrade was answered: ${head.slice(0, end)}`);
    this.#head = undefined;
    this.upgraded();
    this.#reader.read(Buffer.from(head.slice(end + HEAD_END.length), 'latin1'));
  }

  /**
   * @param {number} opcode
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {number} end
   */
  #frame(opcode, bytes, start, end) {
    if (opcode <= OPCODE.binary) this.data(bytes, start, end);
    else if (opcode === OPCODE.ping) this.write(maskedFrame(OPCODE.pong, bytes.subarray(start, end)));
    else if (opcode === OPCODE.close) this.#end(`closed with ${closeCode(bytes, start, end)}`);
  }

  /** @param {string} why */
  #end(why) {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    this.#reject(new Error(`A connection was lost: ${why}`));
    this.listener.closed(why);
  }
}

/** Where the action's name begins in `{"action":"message",…`. */
const ACTION = '{"action":"'.length;
const [LETTER_M, LETTER_P, LETTER_U] = Buffer.from('mpu');
const POSITION = '"position":"';

/** The gateway's language (docs/protocols/courier.md), as far as the plain loop speaks it too. */
class CourierConnection extends Connection {
  /**
   * @override
   * @param {string} topic
   * @param {string} [since]
   */
  subscribe(topic, since) {
    const subscribed = this.answered();
    this.send(JSON.stringify({ action: 'subscribe', topic, since }));
    return subscribed;
  }

  /**
   * @override
   * @param {string} topic
   * @param {string} payload
   * @param {string} [ref]
   */
  publishText(topic, payload, ref) {
    const answered = ref ? `"ref":"${ref}",` : '';
    return `{"action":"publish","topic":"${topic}",${answered}"message":${payload}}`;
  }

  /**
   * @override
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {number} end
   */
  data(bytes, start, end) {
    const letter = bytes[start + ACTION];
    if (letter === LETTER_M) {
      if (this.follows) this.position = positionIn(bytes, start, end) ?? this.position;
      this.listener.message(bytes, end - 1);
    } else if (letter === LETTER_P && bytes[start + ACTION + 1] === LETTER_U) {
      this.listener.acknowledged(bytes, end);
    } else this.#answer(JSON.parse(Buffer.from(bytes.subarray(start, end)).toString()));
  }

  /** @param {{ action: string, position?: string, recovered?: boolean, code?: string, detail?: string }} frame */
  #answer({ action, position, recovered, code, detail }) {
    if (action === 'error') this.listener.refused(`${code}: ${detail}`);
    if (action !== 'subscribed') return;
    if (recovered === false) this.listener.refused('a resumed subscription was not recovered');
    this.position ??= position;
    this.done();
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {number} start
 * @param {number} end
 */
function positionIn(bytes, start, end) {
  const text = Buffer.from(bytes.subarray(start, Math.min(end, start + 512))).toString('latin1');
  const at = text.indexOf(POSITION);
  if (at === -1) return undefined;
  return text.slice(at + POSITION.length, text.indexOf('"', at + POSITION.length));
}

const CR = 13;
const SPACE = 32;
const [LETTER_G] = Buffer.from('G');

/** The NATS protocol in binary frames. What a frame holds is a piece of a stream: lines, and payloads by length. */
class NatsConnection extends Connection {
  /** @type {Uint8Array | undefined} */
  #cut;

  /** @override */
  get opcode() {
    return OPCODE.binary;
  }

  /** The server speaks first. @override */
  upgraded() {}

  /**
   * @override
   * @param {string} topic
   */
  subscribe(topic) {
    const subscribed = this.answered();
    this.send(`SUB ${subject(topic)} 1\r\nPING\r\n`);
    return subscribed;
  }

  /**
   * @override
   * @param {string} topic
   * @param {string} payload
   */
  publishText(topic, payload) {
    return `PUB ${subject(topic)} ${payload.length}\r\n${payload}\r\n`;
  }

  /**
   * @override
   * @param {Uint8Array} piece
   * @param {number} start
   * @param {number} end
   */
  data(piece, start, end) {
    let bytes = piece;
    let [at, last] = [start, end];
    if (this.#cut) {
      bytes = Buffer.concat([this.#cut, piece.subarray(start, end)]);
      [at, last] = [0, bytes.length];
      this.#cut = undefined;
    }
    while (at < last) {
      const line = bytes.indexOf(CR, at);
      const next = line === -1 || line + 2 > last ? -1 : this.#line(bytes, at, line, last);
      if (next === -1) {
        this.#cut = Buffer.from(bytes.subarray(at, last));
        return;
      }
      at = next;
    }
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} start of the line
   * @param {number} line its end
   * @param {number} last how far there are bytes
   * @returns {number} where the next line begins; -1 while the message is not complete
   */
  #line(bytes, start, line, last) {
    // MSG <subject> <sid> <length>: nothing else has a G in third place.
    if (bytes[start + 2] === LETTER_G) {
      let length = 0;
      let place = 1;
      for (let at = line - 1; bytes[at] !== SPACE; at--, place *= 10)
        length += ((bytes[at] ?? 0) - 48) * place;
      const end = line + 2 + length;
      if (end + 2 > last) return -1;
      this.listener.message(bytes, end);
      return end + 2;
    }
    this.#word(Buffer.from(bytes.subarray(start, line)).toString());
    return line + 2;
  }

  /** @param {string} line */
  #word(line) {
    if (line.startsWith('INFO ')) this.send('CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n');
    else if (line === 'PING') this.send('PONG\r\n');
    else if (line === 'PONG') this.done();
    else if (line.startsWith('-ERR')) this.listener.refused(line);
  }
}

/** @param {string} topic */
function subject(topic) {
  return topic.replaceAll('/', '.');
}

/**
 * @param {Uint8Array} bytes
 * @param {number} start
 * @param {number} end
 */
function closeCode(bytes, start, end) {
  if (end - start < 2) return 'no code';
  return `${(bytes[start] ?? 0) * 256 + (bytes[start + 1] ?? 0)} ${Buffer.from(bytes.subarray(start + 2, end))}`;
}
