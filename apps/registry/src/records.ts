import type { AudienceRecord, TopicRecord } from '@posthorn/contracts';
import type { Audience, RegisteredTopic } from './entities.js';

/** An audience as REST and the bucket show it. */
export function audienceRecord(audience: Audience): AudienceRecord {
  return {
    id: audience.id,
    name: audience.name,
    created_at: audience.createdAt.toISOString(),
    updated_at: audience.updatedAt.toISOString(),
  };
}

/** A topic as REST and the bucket show it. */
export function topicRecord(audienceName: string, topic: RegisteredTopic): TopicRecord {
  return {
    id: topic.id,
    topic: topic.name,
    audience: audienceName,
    audienceId: topic.audienceId,
    created_at: topic.createdAt.toISOString(),
    updated_at: topic.updatedAt.toISOString(),
    path: topic.path,
    durable: topic.durable,
    ...(topic.schema === null ? {} : { schema: topic.schema as Record<string, unknown> }),
    ...(topic.retention === null ? {} : { retention: topic.retention }),
  };
}
