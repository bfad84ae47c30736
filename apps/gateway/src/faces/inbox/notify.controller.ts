/** `POST /v1/notifications`: notifies users from outside (docs/protocols/esn.md, "Inbox"). */
import { hash, randomUUID } from 'node:crypto';
import { Body, Controller, Headers, Post, Res, UseGuards } from '@nestjs/common';
import type { Draft } from '@posthorn/bus/platform';
import {
  asProblem,
  assertMayPublish,
  assertPrivileged,
  COMMUNITY_CALLS,
  type ListMembersReply,
  type ListMembersRequest,
  MEMBERS_PAGE,
  PROBLEMS,
  type Principal,
  ProblemError,
  parseTopic,
  principalId,
} from '@posthorn/contracts';
import type { FastifyReply } from 'fastify';
import { authorOf } from '../../author.js';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { idempotencyKeyOf, traceparentOf } from '../../http/publish-headers.js';
import {
  checkedSize,
  type NotificationTarget,
  parseNotification,
  payloadFor,
  RECIPIENTS,
} from './external-notification.js';

/** Publishes of one call that are in flight at once, and their bytes: other calls share the connection. */
const PUBLISHES = 200;
const PUBLISHED_BYTES = 4 * 1024 * 1024;

/** Whom a call notifies. */
export interface NotifyReply {
  readonly recipients: number;
  /** The event of each recipient. */
  readonly events: readonly { readonly id: string; readonly target: string }[];
}

@Controller('v1/notifications')
@UseGuards(CallerGuard)
export class NotifyController {
  readonly #topic = parseTopic('notification:external');

  constructor(private readonly core: GatewayCore) {}

  /** 201 once every recipient's event is stored. */
  @Post()
  async notify(
    @Caller() principal: Principal,
    @Body() body: unknown,
    @Headers('idempotency-key') given: string | undefined,
    @Headers('traceparent') traceparent: string | undefined,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<NotifyReply> {
    assertPrivileged(principal, 'notifying others');
    assertMayPublish(principal, this.#topic, 'local');
    const { notification, targets } = parseNotification(objectBody(body), principal.sub);
    const key = idempotencyKeyOf(given) ?? randomUUID();
    // Without it, a caller that was told of a failure could not repeat the call safely.
    if (given === undefined) reply.header('idempotency-key', key);
    const recipients = await this.#recipients(principal.audience, targets);
    const bytes = checkedSize(notification, recipients.size);
    const drafts = [...recipients].map(
      ([recipient, community]): Draft => ({
        ...authorOf(principal),
        topic: this.#topic,
        scope: 'local',
        message: payloadFor(notification, recipient, community),
        id: eventId(principal, key, recipient),
        ...traceparentOf(traceparent, true),
      }),
    );
    const lot = Math.min(PUBLISHES, Math.ceil(PUBLISHED_BYTES / bytes));
    await this.#publish(drafts, lot);
    const names = [...recipients.keys()];
    return { recipients: names.length, events: drafts.map(({ id }, i) => ({ id: id!, target: names[i]! })) };
  }

  /** Each recipient once, with the community by which it was named first, where that was one. */
  async #recipients(
    audience: string,
    targets: readonly NotificationTarget[],
  ): Promise<ReadonlyMap<string, string | undefined>> {
    const recipients = new Map<string, string | undefined>();
    const add = (id: string, community?: string) => {
      if (recipients.has(id)) return;
      if (recipients.size === RECIPIENTS) {
        throw new ProblemError('request_invalid', `A call has at most ${RECIPIENTS} recipients`, {
          errors: [{ path: '/target', message: `must come to at most ${RECIPIENTS} recipients` }],
        });
      }
      recipients.set(id, community);
    };
    for (const { objectType, id } of targets) {
      if (objectType === 'user') add(id);
      else for await (const member of this.#members(audience, id)) add(member, id);
    }
    return recipients;
  }

  async *#members(audience: string, community: string): AsyncGenerator<string> {
    let after: string | undefined;
    for (;;) {
      const members = await this.core.rpc.call<ListMembersRequest, ListMembersReply>(
        COMMUNITY_CALLS.listMembers,
        { audience, community, ...(after === undefined ? {} : { after }) },
      );
      yield* members;
      if (members.length < MEMBERS_PAGE) return;
      after = members.at(-1);
    }
  }

  /**
   * @param lot how many are in flight at once
   * @throws ProblemError of the first that failed; those before it are stored
   */
  async #publish(drafts: readonly Draft[], lot: number): Promise<void> {
    for (let start = 0; start < drafts.length; start += lot) {
      const results = await Promise.allSettled(
        drafts.slice(start, start + lot).map((draft) => this.core.publisher.publish(draft)),
      );
      const failed = results.find((result) => result.status === 'rejected');
      if (!failed) continue;
      const { code, detail, retryAfter, errors } = asProblem(failed.reason);
      const stored = start + results.filter(({ status }) => status === 'fulfilled').length;
      const done = `${detail}. Of ${drafts.length} recipients, ${stored} are notified`;
      const again = '; the same call with the same Idempotency-Key notifies the others, and none twice';
      throw new ProblemError(code, PROBLEMS[code].retry ? done + again : done, {
        retryAfter,
        errors,
        cause: failed.reason,
      });
    }
  }
}

/**
 * The same for the same call, repeated long after JetStream has forgotten it: an event's id and its recipient are what makes a
 * notification one of its kind.
 */
function eventId(principal: Principal, key: string, recipient: string): string {
  return hash('sha256', JSON.stringify([principal.audience, principalId(principal), key, recipient]), 'hex');
}
