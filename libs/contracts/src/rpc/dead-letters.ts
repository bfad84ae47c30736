/** Calls of the notifier app about dead letters (`ph-rpc.notifier.*`; docs/protocols/esn.md, "Dead letters"). */
import { IsInt, IsOptional, IsString, Length, Max, Min } from 'class-validator';
import type { Scope } from '../subject.js';
import { PAGE } from './inbox.js';

export const DEAD_LETTER_CALLS = {
  list: 'ph-rpc.notifier.list-dead-letters',
  show: 'ph-rpc.notifier.show-dead-letter',
  redrive: 'ph-rpc.notifier.redrive-dead-letter',
  redriveAll: 'ph-rpc.notifier.redrive-dead-letters',
  delete: 'ph-rpc.notifier.delete-dead-letter',
} as const;

/** Whose, and which of them: all, or those of a consumer, with a code, or both. */
export class RedriveRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  @IsOptional()
  @IsString()
  @Length(1, 255)
  consumer?: string;

  @IsOptional()
  @IsString()
  @Length(1, 100)
  code?: string;
}

export class ListDeadLettersRequest extends RedriveRequest {
  @IsInt()
  @Min(1)
  @Max(PAGE.max)
  limit: number = PAGE.default;

  /** `next_cursor` of the page before. */
  @IsOptional()
  @IsString()
  @Length(1, 200)
  cursor?: string;
}

/** One letter. What is no id, and the id of another audience's letter, are answered `dead_letter_not_found`. */
export class DeadLetterRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  @IsString()
  id!: string;
}

/** A dead letter as it is listed. */
export interface DeadLetterItem {
  readonly id: string;
  /** The durable consumer that gave the event up. */
  readonly consumer: string;
  readonly code: string;
  readonly reason: string;
  /** Tries before it was given up, for the last time. */
  readonly tries: number;
  /** How often it was redriven, and failed again. */
  readonly redrives: number;
  /** When it was given up, for the last time; ISO 8601. */
  readonly time: string;
  readonly event: {
    readonly id: string;
    readonly topic: string;
    readonly scope: Scope;
    readonly source: string | null;
    /** When it was stored; ISO 8601. */
    readonly time: string;
    /** Null where the letter does not tell the stream's epoch. */
    readonly position: string | null;
  };
}

/** A dead letter with all of its event. */
export interface DeadLetterView extends DeadLetterItem {
  readonly event: DeadLetterItem['event'] & {
    /** The headers of the envelope; others may hold what is secret. */
    readonly headers: Readonly<Record<string, string>>;
    /** Where the payload is JSON. */
    readonly payload?: unknown;
    /** Where it is not. */
    readonly payload_base64?: string;
  };
}

/** A page of dead letters, those first that were given up first. */
export interface DeadLetterPage {
  readonly items: readonly DeadLetterItem[];
  /** Null at the end. */
  readonly next_cursor: string | null;
}

/** How many letters are being redriven now that were not before. */
export interface RedriveReply {
  readonly redriving: number;
}
