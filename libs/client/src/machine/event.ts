/** What happens to the machine. */
import type { PosthornError } from '../error.js';
import type { ServerFrame } from '../frame.js';
import type { Receipt } from '../types.js';

export type Event = { readonly time: number } & (
  | { readonly type: 'start' }
  | { readonly type: 'tick' }
  | { readonly type: 'token'; readonly n: number; readonly token: string }
  | { readonly type: 'key'; readonly n: number; readonly key: string }
  /** A token, a key or a connection could not be had. */
  | { readonly type: 'failed'; readonly n: number; readonly error: PosthornError }
  /** `expiresIn`: of a `welcome`, milliseconds that the token is good for. */
  | {
      readonly type: 'frame';
      readonly n: number;
      readonly frame: ServerFrame;
      readonly expiresIn?: number | undefined;
    }
  | { readonly type: 'gone'; readonly n: number; readonly code: number }
  | { readonly type: 'network'; readonly online: boolean }
  | { readonly type: 'page'; readonly visible: boolean }
  | {
      readonly type: 'subscribe';
      readonly topic: string;
      readonly listener: number;
      readonly since?: string | undefined;
    }
  | { readonly type: 'unsubscribe'; readonly listener: number }
  | { readonly type: 'publish'; readonly publish: Draft }
  | { readonly type: 'posted'; readonly ref: string; readonly receipt: Receipt }
  | { readonly type: 'refused'; readonly ref: string; readonly error: PosthornError }
  | { readonly type: 'close' }
);

/** A publish as it is called. `topic` undefined: a broadcast. `text`: the message as JSON, `bytes` its length. */
export interface Draft {
  readonly ref: string;
  readonly topic: string | undefined;
  readonly id: string;
  readonly text: string;
  readonly bytes: number;
  readonly repeat: boolean;
}
