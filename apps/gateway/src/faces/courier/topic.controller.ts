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
    const topics = await this.core.rpc.call<ListTopicsRequest, TopicRecord[]>(REGISTRY_CALLS.listTopics, {
      audience: principal.audience,
    });
    return topics.map(answer);
  }

  async #check(principal: Principal, body: unknown): Promise<CreateTopicBody> {
    const request: CreateTopicBody = await bodyPipe.transform(objectBody(body), {
      type: 'body',
      metatype: CreateTopicBody,
    });
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
