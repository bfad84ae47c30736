/** What the machine wants done. */
import type { PosthornError } from '../error.js';
import type { ConnectionState, EventInfo, Gap, Receipt, Welcome } from '../types.js';
import type { Draft } from './event.js';

export type Effect =
  /** Get a token; `not` is one that is no longer good. Answer: `token` or `failed`. */
  | { readonly do: 'token'; readonly n: number; readonly not: string | undefined }
  /** Get a key. Answer: `key` or `failed`. */
  | { readonly do: 'sign'; readonly n: number; readonly token: string }
  /** Answer: `frame`s, then `gone`, or `failed`. */
  | { readonly do: 'socket'; readonly n: number; readonly key: string }
  | {
      readonly do: 'stream';
      readonly n: number;
      readonly token: string;
      readonly subscriptions: readonly Wanted[];
    }
  | { readonly do: 'send'; readonly n: number; readonly text: string }
  /** Give up whatever has this number. No answer. */
  | { readonly do: 'drop'; readonly n: number }
  /** Publish by HTTP. Answer: `posted` or `refused`. */
  | { readonly do: 'post'; readonly publish: Draft }
  | {
      readonly do: 'deliver';
      readonly listeners: readonly number[];
      readonly message: unknown;
      readonly info: EventInfo;
    }
  | { readonly do: 'ready'; readonly listeners: readonly number[]; readonly position: string | undefined }
  | { readonly do: 'gap'; readonly listeners: readonly number[]; readonly gap: Gap }
  /** The listeners' subscription is over. */
  | { readonly do: 'ended'; readonly listeners: readonly number[]; readonly error: PosthornError }
  | { readonly do: 'accepted'; readonly ref: string; readonly receipt: Receipt }
  | { readonly do: 'rejected'; readonly ref: string; readonly error: PosthornError }
  | { readonly do: 'welcome'; readonly welcome: Welcome }
  | { readonly do: 'state'; readonly state: ConnectionState }
  | { readonly do: 'error'; readonly error: PosthornError };

/** One member of a stream's body. */
export interface Wanted {
  readonly topic: string;
  readonly since: string | undefined;
  readonly ref: string;
}
