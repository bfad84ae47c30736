/** `GET /v1/asyncapi.json` (docs/protocols/events.md, "AsyncAPI"). */
import {
  Controller,
  type ExecutionContext,
  Get,
  Injectable,
  Query,
  Req,
  Res,
  UseGuards,
} from '@nestjs/common';
import {
  asyncApiDocument,
  type DescribedTopic,
  describeCatalogue,
  describeRegistered,
  describeRooms,
  type ListTopicsRequest,
  type Principal,
  REGISTRY_CALLS,
  type TopicRecord,
} from '@posthorn/contracts';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { GatewayCore } from '../../core.js';
import { Buckets } from '../../http/buckets.js';
import { Caller, CallerGuard } from '../../http/caller.js';
import { publicUrl } from '../../http/public-url.js';
import { tooFast } from '../../session/limits.js';
import { matchesTag, type Shown, shown } from './shown.js';

/**
 * Bytes that registered topics may take in one document: about 1,000 without a schema. It is made within some tens
 * of milliseconds, for which sockets wait.
 */
const REGISTERED_LIMIT = 1024 * 1024;
/** Documents of its own that an audience may ask for in a second, and at once. */
const RATE = 2;
const BURST = 20;

/** Lets calls without `Authorization` pass as nobody; one that has it must be right, as everywhere else. */
@Injectable()
class CallerIfAny extends CallerGuard {
  override async canActivate(context: ExecutionContext): Promise<boolean> {
    const { headers } = context.switchToHttp().getRequest<FastifyRequest>();
    return headers.authorization === undefined || super.canActivate(context);
  }
}

/** What an audience registered, as far as one document holds it. */
interface Registered {
  readonly topics: readonly DescribedTopic[];
  /** The id of the last topic that was looked at, where there are more. */
  readonly next?: string;
}

@Controller('v1/asyncapi.json')
@UseGuards(CallerIfAny)
export class CatalogueController {
  readonly #catalogue = [...describeCatalogue(), ...describeRooms()];
  readonly #socketUrl: string;
  /** What everybody may see never changes while the process lives. */
  readonly #public: Shown;
  readonly #asked = new Buckets(RATE, BURST);

  constructor(private readonly core: GatewayCore) {
    this.#socketUrl = `${publicUrl(core.config)}/ws`;
    this.#public = shown(asyncApiDocument({ socketUrl: this.#socketUrl, topics: this.#catalogue }));
  }

  /** The catalogue; with a token also what its audience registered, from the topic after `after` on. */
  @Get()
  async document(
    @Caller() principal: Principal | undefined,
    @Query('after') after: string | undefined,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const { text, tag } = principal ? await this.#forAudience(principal.audience, after) : this.#public;
    // The same address answers each audience with its own: what is kept for one is never given to another.
    addToVary(reply, 'Authorization');
    reply
      .header('cache-control', principal ? 'private, no-cache' : 'public, max-age=300')
      .header('etag', tag);
    if (matchesTag(request.headers['if-none-match'], tag)) return void reply.code(304).send();
    return void reply.header('content-type', 'application/json; charset=utf-8').send(text);
  }

  async #forAudience(audience: string, after: string | undefined): Promise<Shown> {
    const seconds = this.#asked.take(audience, performance.now());
    if (seconds > 0) throw tooFast(seconds);
    const { topics, next } = await this.#registered(audience, after);
    const all = [...this.#catalogue, ...topics];
    return shown(asyncApiDocument({ socketUrl: this.#socketUrl, topics: all, audience, next }));
  }

  /** Reads page by page, so that nothing is made of topics for which there is no room. */
  async #registered(audience: string, after: string | undefined): Promise<Registered> {
    const topics: DescribedTopic[] = [];
    let bytes = 0;
    for (let last = after; ; ) {
      const page = await this.core.rpc.call<ListTopicsRequest, TopicRecord[]>(REGISTRY_CALLS.listTopics, {
        audience,
        ...(last === undefined ? {} : { after: last }),
      });
      if (page.length === 0) return { topics };
      for (const record of page) {
        const topic = describeRegistered(record);
        if (topic) {
          bytes += Buffer.byteLength(JSON.stringify(topic));
          if (bytes > REGISTERED_LIMIT && topics.length > 0) return { topics, next: last };
          topics.push(topic);
        }
        last = record.id;
      }
    }
  }
}

function addToVary(reply: FastifyReply, field: string): void {
  const present = reply.getHeader('vary');
  reply.header('vary', present === undefined ? field : `${String(present)}, ${field}`);
}
