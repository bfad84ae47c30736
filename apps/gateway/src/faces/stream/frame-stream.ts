/**
 * A socket's downstream as an event stream (docs/protocols/inthe-am.md, "Event stream"): a session whose client has
 * asked for all it wants at the beginning.
 */
import type { Principal } from '@posthorn/contracts';
import { broadcastJson, messageJson } from '../../hub/frame.js';
import type { Carrier, Peer } from '../../session/carrier.js';
import type { ClientFrame } from '../../session/client-frame.js';
import { contract, type Dialect } from '../../session/dialect.js';
import { Session, type SessionParts } from '../../session/session.js';
import { jsonBlock } from './blocks.js';
import { OpenAnswer } from './open-answer.js';

/** The frames of a socket, each as one `data:`. */
const asData: Dialect = {
  ...contract,
  welcome: (welcome) => dataOf({ action: 'welcome', ...welcome }),
  answer: dataOf,
  messages: (name) => ({
    key: `\u0000data ${name}`,
    encode: (event) => jsonBlock('', Buffer.concat(messageJson(event, name))),
  }),
  broadcasts: {
    key: '\u0000data',
    encode: (event) => jsonBlock('', Buffer.concat(broadcastJson(event))),
  },
};

function dataOf(message: object): Buffer {
  return jsonBlock('', Buffer.from(JSON.stringify(message)));
}

export class FrameStream {
  readonly #session: Session;
  readonly #parts: SessionParts;
  readonly #frames: readonly ClientFrame[];
  #heartbeat: { cancel(): void } | undefined;
  #isOver = false;

  /**
   * @param frames what is asked for once the client was welcomed
   * @param closed called once, when it is over
   */
  constructor(
    parts: SessionParts,
    carrier: AnswerCarrier,
    principal: Principal,
    frames: readonly ClientFrame[],
    closed: (stream: FrameStream) => void,
  ) {
    this.#parts = parts;
    this.#frames = frames;
    this.#session = new Session(parts, carrier, principal, asData, () => {
      this.#isOver = true;
      this.#heartbeat?.cancel();
      closed(this);
    });
  }

  get principal(): Principal {
    return this.#session.principal;
  }

  open(): void {
    void this.#session.open().then(() => {
      for (const frame of this.#frames) this.#session.ask(frame);
      this.#scheduleHeartbeat();
    });
  }

  revoke(): void {
    this.#session.revoke();
  }

  sendElsewhere(afterMs: number): void {
    void this.#session.sendElsewhere(afterMs);
  }

  terminate(): void {
    this.#session.terminate();
  }

  /** A place to resume from, which its client cannot ask for. */
  #scheduleHeartbeat(): void {
    if (this.#isOver) return;
    const { wheel, config } = this.#parts;
    this.#heartbeat = wheel.at(Date.now() + config.heartbeat, () => {
      this.#session.ask({ action: 'ping' });
      this.#scheduleHeartbeat();
    });
  }
}

export class AnswerCarrier extends OpenAnswer implements Carrier {
  readonly ping = undefined;

  open(peer: Peer): void {
    this.watch(() => peer.gone());
  }

  /** Its client says nothing more. */
  pause(): void {}
  resume(): void {}
}
