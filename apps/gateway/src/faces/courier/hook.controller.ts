/** `POST /v1/hook`: publishes from outside (docs/protocols/courier.md). */
import { Body, Controller, Headers, HttpCode, Post, Res, UseGuards } from '@nestjs/common';
import type { Receipt } from '@posthorn/bus';
import { type Draft, idOnBoth, publishOnBoth, publishTopic } from '@posthorn/bus/platform';
import {
  assertMayPublish,
  assertPrivileged,
  BROADCAST,
  type Finding,
  formatPosition,
  isPrivileged,
  type Principal,
  ProblemError,
  publicName,
  type Scope,
  type Topic,
} from '@posthorn/contracts';
import type { FastifyReply } from 'fastify';
import { authorOf } from '../../author.js';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { idempotencyKeyOf, traceparentOf } from '../../http/publish-headers.js';
import { PublishRates } from './publish-rates.js';

interface HookBody {
  readonly topic: string;
  readonly action: 'publish' | 'broadcast';
  readonly message: object;
  readonly scope: Scope | 'both' | undefined;
}

@Controller('v1/hook')
@UseGuards(CallerGuard)
export class HookController {
  constructor(
    private readonly core: GatewayCore,
    private readonly rates: PublishRates,
  ) {}

  /**
   * 200 with the same object once the event is stored; its place, where it has one, is in `Posthorn-Position`: on
   * both scopes that of the global one, which is the one that clients resume from.
   */
  @Post()
  @HttpCode(200)
  async publish(
    @Caller() principal: Principal,
    @Body() raw: unknown,
    @Headers('idempotency-key') idempotencyKey: string | undefined,
    @Headers('traceparent') traceparent: string | undefined,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<object> {
    const body = parseHook(objectBody(raw));
    if (body.scope !== undefined) assertPrivileged(principal, 'scope');
    const topic = publishTopic(body.topic, body.message);
    const scope = body.scope ?? defaultScope(topic);
    for (const one of scopesOf(scope)) assertMayPublish(principal, topic, one);
    const key = idempotencyKeyOf(idempotencyKey);
    this.rates.take(principal, topic);
    const draft = {
      ...authorOf(principal),
      topic,
      message: body.message,
      ...(key === undefined ? {} : { idempotencyKey: key }),
      ...(body.action === 'broadcast' ? { kind: 'broadcast' as const } : {}),
      ...traceparentOf(traceparent, isPrivileged(principal)),
    };
    const receipt =
      scope === 'both'
        ? await this.#publishOnBoth(draft)
        : await this.core.publisher.publish({ ...draft, scope });
    this.#describe(reply, receipt);
    return raw as object;
  }

  /** One event, under one id: with a key the same in each try, so that a repeat completes what is missing. */
  async #publishOnBoth(draft: Omit<Draft, 'scope'>): Promise<Receipt> {
    const { audience, principal, topic, idempotencyKey: key } = draft;
    if (await this.core.bus.isEphemeral(audience, topic)) {
      throw new ProblemError(
        'request_invalid',
        `${publicName(topic)} is ephemeral, and has global events only`,
      );
    }
    const id = idOnBoth({ audience, path: topic.path, principal }, key);
    const publish = (scope: Scope) => () => this.core.publisher.publish({ ...draft, id, scope });
    const [, global] = await publishOnBoth(['local', publish('local')], ['global', publish('global')]);
    return global;
  }

  #describe(reply: FastifyReply, receipt: Receipt): void {
    if (receipt.position) reply.header('posthorn-position', formatPosition(receipt.position));
    reply.header('posthorn-event-id', encodeURIComponent(receipt.id));
  }
}

function parseHook(body: Record<string, unknown>): HookBody {
  const { topic, action, message, scope } = body;
  const errors: Finding[] = [];
  if (action !== 'publish' && action !== 'broadcast') {
    errors.push({ path: '/action', message: 'must be publish or broadcast' });
  }
  if (action !== 'broadcast' && (typeof topic !== 'string' || topic === '')) {
    errors.push({ path: '/topic', message: 'must be a text' });
  }
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    errors.push({ path: '/message', message: 'must be an object' });
  }
  if (scope !== undefined && scope !== 'local' && scope !== 'global' && scope !== 'both') {
    errors.push({ path: '/scope', message: 'must be local, global or both' });
  }
  if (errors.length > 0) {
    throw new ProblemError('request_invalid', 'The body does not have the expected form', { errors });
  }
  return {
    topic: action === 'broadcast' ? BROADCAST : (topic as string),
    action: action as HookBody['action'],
    message: message as object,
    scope: action === 'broadcast' ? undefined : (scope as HookBody['scope']),
  };
}

function scopesOf(scope: Scope | 'both'): readonly Scope[] {
  return scope === 'both' ? ['local', 'global'] : [scope];
}

/** The only scope that the catalogue gives the topic, else global. */
function defaultScope(topic: Topic): Scope {
  const scopes = topic.entry?.scopes;
  return scopes?.length === 1 ? scopes[0]! : 'global';
}
