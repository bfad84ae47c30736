/** `POST /v1/topic` and `GET /v1/topic`. */
import { Body, Controller, Get, Post, Res, UseGuards } from '@nestjs/common';
import { OmitType } from '@nestjs/swagger';
import {
  assertPrivileged,
  type CreateTopicReply,
  CreateTopicRequest,
  isPrivileged,
  type ListTopicsRequest,
  mayReceive,
  type Principal,
  ProblemError,
  parseTopic,
  REGISTRY_CALLS,
  type TopicRecord,
} from '@posthorn/contracts';
import { validationPipe } from '@posthorn/service';
import type { FastifyReply } from 'fastify';
import { GatewayCore } from '../../core.js';
import { objectBody } from '../../http/body.js';
import { Caller, CallerGuard } from '../../http/caller.js';

/** The body of `POST /v1/topic`: the call to the registry without the audience, which is the token's. */
class CreateTopicBody extends OmitType(CreateTopicRequest, ['audience'] as const) {}

/** A topic as REST shows it. */
type TopicAnswer = Omit<TopicRecord, 'path'>;

@Controller('v1/topic')
@UseGuards(CallerGuard)
export class TopicController {
  constructor(private readonly core: GatewayCore) {}

  /** 201 with the topic, 200 with the same when it exists unchanged, 409 when it exists with other properties. */
  @Post()
  async create(
    @Caller() principal: Principal,
    @Body() body: unknown,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<TopicAnswer> {
    const request = await this.#check(principal, body);
    const { created, topic } = await this.core.rpc.call<CreateTopicRequest, CreateTopicReply>(
      REGISTRY_CALLS.createTopic,
      { ...request, audience: principal.audience },
    );
    this.core.bus.topics.rememberTopic(topic);
    reply.code(created ? 201 : 200);
    return answer(topic);
  }

  /** The topics of the token's audience. */
  @Get()
  async list(@Caller() principal: Principal): Promise<TopicAnswer[]> {
    const topics: TopicAnswer[] = [];
    for (let after: string | undefined; ; after = topics.at(-1)!.id) {
      // One reply does not hold as many topics as an audience may have.
      const page = await this.core.rpc.call<ListTopicsRequest, TopicRecord[]>(REGISTRY_CALLS.listTopics, {
        audience: principal.audience,
        ...(after === undefined ? {} : { after }),
      });
      if (page.length === 0) return topics;
      topics.push(...page.map(answer));
    }
  }

  async #check(principal: Principal, body: unknown): Promise<CreateTopicBody> {
    const raw = objectBody(body);
    const request: CreateTopicBody = await bodyPipe.transform(raw, {
      type: 'body',
      metatype: CreateTopicBody,
    });
    // Nest's pipe deletes members named `constructor` or `prototype` at any depth; a schema may speak of them.
    if (request.schema !== undefined) request.schema = raw.schema as Record<string, unknown>;
    const properties = (['schema', 'retention', 'durable'] as const).filter(
      (name) => request[name] !== undefined,
    );
    if (properties.length > 0) assertPrivileged(principal, properties.join(', '));
    const topic = parseTopic(request.topic, principal.sub);
    // A name that somebody may neither hear nor use is not theirs to register.
    if (!isPrivileged(principal) && !mayReceive(principal, topic)) {
      throw new ProblemError('forbidden', 'The topic is reserved');
    }
    return request;
  }
}

const bodyPipe = validationPipe();

function answer({ path: _, ...topic }: TopicRecord): TopicAnswer {
  return topic;
}
