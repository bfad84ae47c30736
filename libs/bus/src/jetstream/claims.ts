/**
 * What the processes of a durable consumer tell each other: who has claimed what. In the bucket `ph-consumers`, changed
 * by compare-and-set only, and read of its leader: what a follower does not have proves nothing.
 */
import {
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
} from '@nats-io/jetstream';
import { deadline } from '@nats-io/nats-core';
import { nanos } from '@nats-io/transport-node';
import { BUCKETS, ProblemError, STREAMS } from '@posthorn/contracts';

/** How long a claim is kept, in milliseconds: as long as streams keep events. */
export const CLAIM_AGE = 7 * 24 * 3_600_000;
/** Bytes of all claims, of some 300 each: beyond it the oldest go first. */
const MAX_BYTES = 64 * 1024 * 1024;
/** How long one question may take, in milliseconds. */
const QUESTION = 2_000;
/** The bucket exists, with other settings. */
const NAME_IN_USE = 10058;
/** Another value stands there than the one that was to be replaced. */
const WRONG_LAST_SEQUENCE = 10071;

/** A claim, and the revision that replaces it. */
export interface Claimed {
  readonly value: string;
  readonly revision: number;
}

const utf8 = new TextDecoder();

export class Claims {
  readonly #js: JetStreamClient;
  readonly #jsm: JetStreamManager;
  #bucket: Promise<void> | undefined;

  constructor(js: JetStreamClient, jsm: JetStreamManager) {
    this.#js = js;
    this.#jsm = jsm;
  }

  /** @throws ProblemError `unavailable` */
  read(key: string): Promise<Claimed | undefined> {
    return this.#ask(async () => {
      const stored = await this.#jsm.streams.getMessage(STREAM, { last_by_subj: SUBJECT + key });
      // A marker of a deletion has no value.
      return stored ? { value: utf8.decode(stored.data), revision: stored.seq } : undefined;
    });
  }

  /**
   * Whether the claim was written in the place of that revision (0: of none).
   * @throws ProblemError `unavailable`: then it may have been written
   */
  write(key: string, value: string, revision: number): Promise<boolean> {
    return this.#ask(async () => {
      try {
        const expect = { lastSubjectSequence: revision };
        await this.#js.publish(SUBJECT + key, value, { expect, timeout: QUESTION });
        return true;
      } catch (error) {
        if (error instanceof JetStreamApiError && error.code === WRONG_LAST_SEQUENCE) return false;
        throw error;
      }
    });
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    try {
      this.#bucket ??= this.#create();
      await this.#bucket;
      return await deadline(question(), 2 * QUESTION);
    } catch (cause) {
      // It may be gone: then it is made anew before the next question.
      this.#bucket = undefined;
      throw new ProblemError('unavailable', 'The state of the consumer cannot be asked', { cause });
    }
  }

  /** Made by whoever needs it first, on as many servers as the events. */
  async #create(): Promise<void> {
    const { config } = await this.#jsm.streams.info(STREAMS.global.name);
    try {
      await this.#jsm.streams.add({
        name: STREAM,
        subjects: [`${SUBJECT}>`],
        num_replicas: config.num_replicas,
        max_msgs_per_subject: 1,
        max_age: nanos(CLAIM_AGE),
        max_bytes: MAX_BYTES,
        // A full bucket must not stop its consumers.
        discard: DiscardPolicy.Old,
        allow_rollup_hdrs: true,
        deny_delete: true,
      });
    } catch (error) {
      if (!(error instanceof JetStreamApiError && error.code === NAME_IN_USE)) throw error;
    }
  }
}

const STREAM = `KV_${BUCKETS.consumers}`;
const SUBJECT = `$KV.${BUCKETS.consumers}.`;
