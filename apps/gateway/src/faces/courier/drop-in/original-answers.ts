import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import type { AudienceRecord, TopicRecord } from '@posthorn/contracts';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { mergeMap, type Observable } from 'rxjs';
import { wantsOriginal } from './calls.js';

/** A topic as REST shows it. */
type TopicAnswer = Omit<TopicRecord, 'path'>;

/** Shows what the controllers answer as the original did. */
export class OriginalAnswers implements NestInterceptor {
  readonly #audience: (name: string) => Promise<AudienceRecord>;

  /** @param audience an audience by its name, from memory */
  constructor(audience: (name: string) => Promise<AudienceRecord>) {
    this.#audience = audience;
  }

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const http = context.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    if (!wantsOriginal(request)) return next.handle();
    return next.handle().pipe(
      mergeMap(async (answer) => {
        const reply = http.getResponse<FastifyReply>();
        // The original answered a success with 200 only, and there are clients that look for just that.
        if (reply.statusCode === 201) reply.code(200);
        return { data: await this.#show(request.routeOptions.url, answer) };
      }),
    );
  }

  #show(route: string | undefined, answer: unknown): unknown {
    switch (route) {
      case '/v1/audience':
        return showAudience(answer as AudienceRecord);
      case '/v1/topic':
        return Array.isArray(answer)
          ? Promise.all(answer.map((topic: TopicAnswer) => this.#showTopic(topic)))
          : this.#showTopic(answer as TopicAnswer);
      default:
        return answer;
    }
  }

  async #showTopic({ created_at, updated_at, ...topic }: TopicAnswer): Promise<object> {
    const audience = showAudience(await this.#audience(topic.audience));
    return { ...topic, audience, createdAt: created_at, updatedAt: updated_at };
  }
}

function showAudience({ id, name, created_at, updated_at }: AudienceRecord): object {
  return { id, name, createdAt: created_at, updatedAt: updated_at };
}
