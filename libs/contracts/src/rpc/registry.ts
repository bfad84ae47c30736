/** Calls of the registry app (`ph-rpc.registry.*`), and what it projects into the bucket `ph-topics`. */
import 'reflect-metadata';
import { Type } from 'class-transformer';
import {
  ArrayMaxSize,
  IsArray,
  IsBoolean,
  IsInt,
  IsObject,
  IsOptional,
  IsString,
  IsUUID,
  Length,
  Max,
  Min,
  ValidateNested,
} from 'class-validator';

export const REGISTRY_CALLS = {
  createAudience: 'ph-rpc.registry.create-audience',
  createTopic: 'ph-rpc.registry.create-topic',
  listTopics: 'ph-rpc.registry.list-topics',
  lookup: 'ph-rpc.registry.lookup',
  reportUsage: 'ph-rpc.registry.report-usage',
} as const;

/** Retention of a topic: one minute to one year, in seconds. */
export const RETENTION = { min: 60, max: 365 * 24 * 3600 } as const;

export class CreateAudienceRequest {
  @IsString()
  @Length(1, 100)
  name!: string;
}

export class CreateTopicRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  @IsString()
  @Length(1, 512)
  topic!: string;

  /** JSON Schema 2020-12 of the payload. */
  @IsOptional()
  @IsObject()
  schema?: Record<string, unknown>;

  /** Seconds for which events can be read back; no longer than the stream's own limit has an effect. */
  @IsOptional()
  @IsInt()
  @Min(RETENTION.min)
  @Max(RETENTION.max)
  retention?: number;

  /** False: live only, without position or replay. Default true. */
  @IsOptional()
  @IsBoolean()
  durable?: boolean;
}

/** A page of topics, oldest first: a reply has to fit a NATS message. The last page is empty. */
export class ListTopicsRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  /** The id of the last topic of the page before. */
  @IsOptional()
  @IsUUID()
  after?: string;
}

/** Asks for what the bucket does not hold (yet). */
export class LookupRequest {
  @IsString()
  @Length(1, 100)
  audience!: string;

  /** A topic's path. */
  @IsOptional()
  @IsString()
  @Length(1, 8192)
  path?: string;
}

/** Audiences of one report: it has to fit a NATS message. */
export const USAGE_PAGE = 1_000;

/** What an audience has published in a day. */
export class Usage {
  @IsString()
  @Length(1, 100)
  audience!: string;

  /** Events stored. */
  @IsInt()
  @Min(0)
  @Max(Number.MAX_SAFE_INTEGER)
  publishes!: number;

  /** Bytes that they take in the streams. */
  @IsInt()
  @Min(0)
  @Max(Number.MAX_SAFE_INTEGER)
  bytes!: number;
}

/**
 * What one process has taken in for each audience since the day began. Counters only grow, so that a report
 * that comes twice, late or after a larger one counts once.
 */
export class ReportUsageRequest {
  /** Another one for each start of a process. */
  @IsUUID()
  process!: string;

  /** Days from 1970-01-01 to it, UTC. */
  @IsInt()
  @Min(0)
  @Max(1_000_000)
  day!: number;

  @IsArray()
  @ArrayMaxSize(USAGE_PAGE)
  @ValidateNested({ each: true })
  @Type(() => Usage)
  usage!: Usage[];
}

/** What one audience may publish in a day; null: without limit. */
export interface Quota {
  readonly publishes: number | null;
  readonly bytes: number | null;
}

export interface ReportUsageReply {
  readonly quota: Quota;
  /** What all other processes have reported, for each audience of the request that exists. */
  readonly others: readonly Usage[];
}

/** An audience as REST shows it; also the value in the bucket under `audienceKey(name)`. */
export interface AudienceRecord {
  readonly id: string;
  readonly name: string;
  /** ISO 8601. */
  readonly created_at: string;
  readonly updated_at: string;
}

/** A registered topic; also the value in the bucket under `topicKey(audience, path)`. */
export interface TopicRecord {
  readonly id: string;
  readonly topic: string;
  /** The audience's name. */
  readonly audience: string;
  readonly audienceId: string;
  readonly created_at: string;
  readonly updated_at: string;
  /** `<key>.<segments>`; REST does not show it. */
  readonly path: string;
  readonly durable: boolean;
  readonly schema?: Record<string, unknown>;
  /** Seconds. */
  readonly retention?: number;
}

export interface CreateAudienceReply {
  readonly created: boolean;
  readonly audience: AudienceRecord;
}

export interface CreateTopicReply {
  readonly created: boolean;
  readonly topic: TopicRecord;
}

export interface LookupReply {
  readonly audience: AudienceRecord | null;
  readonly topic: TopicRecord | null;
}
