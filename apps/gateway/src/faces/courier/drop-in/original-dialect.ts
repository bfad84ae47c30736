/**
 * The drop-in mode on sockets (docs/protocols/courier.md, "Drop-in mode"): bare messages, and silence about
 * everything else.
 */
import { asProblem } from '@posthorn/contracts';
import type { GatewayConfig } from '../../../config.js';
import type { Encoding } from '../../../hub/feed.js';
import { textFrame } from '../../../hub/frame.js';
import { checkClientFrame, parseFrame } from '../../../session/client-frame.js';
import { contract, type Dialect } from '../../../session/dialect.js';

/** The frames that the original knew. Others, and members that it did not know, have no meaning. */
const ACTIONS: ReadonlySet<unknown> = new Set(['subscribe', 'unsubscribe', 'publish', 'broadcast']);
const BARE: Encoding = { key: '\u0000bare', encode: ({ bytes }) => textFrame(bytes) };

export const original: Dialect = {
  read(data) {
    let frame: Record<string, unknown>;
    try {
      frame = parseFrame(data.toString('utf8'));
    } catch (error) {
      return asProblem(error);
    }
    const { action, topic, message } = frame;
    if (!ACTIONS.has(action)) return undefined;
    try {
      return checkClientFrame({ action, topic, message });
    } catch {
      return undefined;
    }
  },
  strikes: 0,
  refusesExcess: false,
  welcome: ({ connection }) => textFrame(Buffer.from(connection)),
  answer: () => undefined,
  messages: () => BARE,
  broadcasts: BARE,
  broadcastSink: (sink, subscribed) => ({
    send: (frames) => {
      if (subscribed()) sink.send(frames);
    },
    room: () => sink.room(),
  }),
};

/** The dialect of a socket on which a subprotocol of ours was agreed upon, or none. */
export function dialectOf({ courierCompat }: GatewayConfig, subprotocol: string): Dialect {
  return courierCompat && subprotocol === '' ? original : contract;
}
