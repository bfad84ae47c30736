/** What the worker has to do for an event, and what became of it. */
import type { UserNotification } from '@posthorn/contracts';
import type { RecordedUpdate } from '../inbox/inbox-changes.js';
import type { Wanted } from './notice.js';

/** An event with what it wants. */
export interface Work {
  readonly audience: string;
  /** At most 255 characters. */
  readonly eventId: string;
  /** When the event was stored, in nanoseconds since 1970: grows along the stream. */
  readonly ordinal: bigint;
  /** Whether the event was delivered before, and may have been stored in part or whole. */
  readonly redelivered: boolean;
  /** W3C trace context. */
  readonly traceparent?: string | undefined;
  readonly wanted: Wanted;
  /** The notice's content, as it is stored. */
  readonly content: string | undefined;
}

/** A stored notification of which its recipient has yet to be told. */
export interface Created {
  readonly id: string;
  readonly audience: string;
  readonly message: UserNotification;
}

/** What became of a batch. */
export interface Applied {
  /** One for each event, in their order. */
  readonly stored: readonly Stored[];
  /** To be told after what the events have created. */
  readonly updates: readonly RecordedUpdate[];
}

/** What became of an event. */
export interface Stored {
  /** Why the event could not be handled, while its neighbours could. */
  failure: Error | undefined;
  readonly created: Created[];
  /** Notifications that were not there before. */
  written: number;
}
