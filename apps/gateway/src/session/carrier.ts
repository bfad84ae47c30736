/** What carries a session's frames: a socket, or an answer that does not end. */
import type { Writable } from 'node:stream';
import type { CLOSE } from '@posthorn/contracts';

/** What the peer does. */
export interface Peer {
  receive(data: Buffer, isBinary: boolean): void;
  /** Called at a sign of life that says nothing else. */
  heard(): void;
  /** It broke the protocol, and was told so: nothing may be written any more. */
  broken(reason: keyof typeof CLOSE): void;
  /** Called once. */
  gone(): void;
}

export interface Carrier {
  /** Whole frames are written to it, nothing else of ours is. */
  readonly stream: Writable;
  /** What asks the peer for a sign of life; undefined where it cannot give one. */
  readonly ping: Uint8Array | undefined;
  /** Says from now on what the peer does. Called once. */
  open(peer: Peer): void;
  /** Reads no more, so that the peer is held back; {@link resume} reads on. */
  pause(): void;
  resume(): void;
  /** Ends it once what was written is sent. */
  close(reason: keyof typeof CLOSE): void;
  /** Ends it without waiting for the peer. */
  terminate(): void;
}
