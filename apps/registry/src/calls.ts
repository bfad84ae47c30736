import { type ArgumentMetadata, Controller, Injectable, type PipeTransform } from '@nestjs/common';
import { MessagePattern, Payload } from '@nestjs/microservices';
import {
  type CreateAudienceReply,
  CreateAudienceRequest,
  type CreateTopicReply,
  CreateTopicRequest,
  ListTopicsRequest,
  type LookupReply,
  LookupRequest,
  REGISTRY_CALLS,
  type ReportUsageReply,
  ReportUsageRequest,
  type TopicRecord,
} from '@posthorn/contracts';
import { validationPipe } from '@posthorn/service';
import { Audiences } from './audiences.js';
import { Topics } from './topics.js';
import { Usages } from './usages.js';

/**
 * Validates a request and hands on its schema as it came. Nest's own pipe removes every key `constructor`,
 * `prototype` and `__proto__`, at any depth: in a schema they are names of properties. It also recurses,
 * and a schema's depth is only checked later.
 */
@Injectable()
export class TopicRequestPipe implements PipeTransform {
  readonly #validation = validationPipe();

  async transform(value: unknown, metadata: ArgumentMetadata): Promise<CreateTopicRequest> {
    const { schema } = Object(value);
    const object = typeof schema === 'object' && schema !== null && !Array.isArray(schema);
    const request = await this.#validation.transform(
      object ? { ...Object(value), schema: {} } : value,
      metadata,
    );
    if (object) request.schema = schema;
    return request;
  }
}

/** The registry's calls (`ph-rpc.registry.*`). */
@Controller()
export class Calls {
  constructor(
    private readonly audiences: Audiences,
    private readonly topics: Topics,
    private readonly usages: Usages,
  ) {}

  @MessagePattern(REGISTRY_CALLS.createAudience)
  createAudience(@Payload(validationPipe()) { name }: CreateAudienceRequest): Promise<CreateAudienceReply> {
    return this.audiences.create(name);
  }

  @MessagePattern(REGISTRY_CALLS.createTopic)
  createTopic(@Payload(TopicRequestPipe) request: CreateTopicRequest): Promise<CreateTopicReply> {
    return this.topics.create(request);
  }

  @MessagePattern(REGISTRY_CALLS.listTopics)
  listTopics(@Payload(validationPipe()) { audience, after }: ListTopicsRequest): Promise<TopicRecord[]> {
    return this.topics.list(audience, after);
  }

  @MessagePattern(REGISTRY_CALLS.lookup)
  async lookup(@Payload(validationPipe()) { audience: name, path }: LookupRequest): Promise<LookupReply> {
    const audience = await this.audiences.find(name);
    const topic = audience && path !== undefined ? await this.topics.find(audience, path) : null;
    return { audience, topic };
  }

  @MessagePattern(REGISTRY_CALLS.reportUsage)
  reportUsage(@Payload(validationPipe()) request: ReportUsageRequest): Promise<ReportUsageReply> {
    return this.usages.report(request);
  }
}
