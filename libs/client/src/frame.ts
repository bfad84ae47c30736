/** Frames from the server (docs/protocols/courier.md), on a socket or in a stream. */
import type { Finding, ServerErrorCode } from './error.js';
import type { Room } from './types.js';

export type ServerFrame =
  | {
      readonly action: 'welcome';
      readonly connection: string;
      readonly audience: string;
      readonly expires: string | null;
      readonly room?: Room;
    }
  | {
      readonly action: 'subscribed';
      readonly topic: string;
      readonly position?: string;
      readonly recovered?: boolean;
      readonly ref?: string;
    }
  | { readonly action: 'unsubscribed'; readonly topic: string; readonly ref?: string }
  | {
      readonly action: 'message';
      readonly topic: string;
      readonly id: string;
      readonly position?: string;
      readonly message: unknown;
    }
  | {
      readonly action: 'broadcast';
      readonly id: string;
      readonly position?: string;
      readonly message: unknown;
    }
  | {
      readonly action: 'published';
      readonly topic: string;
      readonly id: string;
      readonly position?: string;
      readonly ref: string;
    }
  | {
      readonly action: 'error';
      readonly code: ServerErrorCode;
      readonly detail: string;
      readonly errors?: readonly Finding[];
      readonly ref?: string;
    }
  | { readonly action: 'pong'; readonly position?: string }
  | { readonly action: 'reconnect'; readonly after_ms: number };

/** Frames of one action. */
export type Frame<Action extends ServerFrame['action']> = ServerFrame & { readonly action: Action };

/** What the server says no more about, and what a later one may say: passed over. */
export function parseFrame(text: string): ServerFrame | undefined {
  try {
    const frame = JSON.parse(text);
    return frame && typeof frame === 'object' ? frame : undefined;
  } catch {
    return undefined;
  }
}
