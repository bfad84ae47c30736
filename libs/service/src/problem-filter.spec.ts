import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Body, Controller, ForbiddenException, Get, Module, Post } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { ProblemError } from '@posthorn/contracts';
import { Type } from 'class-transformer';
import { IsInt, IsString, ValidateNested } from 'class-validator';
import { createLogger } from './logger.js';
import { ProblemFilter } from './problem-filter.js';
import { validationPipe } from './validation.js';

class Limits {
  @IsInt()
  retention!: number;
}

class Topic {
  @IsString()
  name!: string;

  @ValidateNested()
  @Type(() => Limits)
  limits!: Limits;
}

@Controller()
class Calls {
  @Post('topics')
  create(@Body() topic: Topic) {
    return topic;
  }

  @Get('problem')
  problem() {
    throw new ProblemError('rate_limited', 'Slow down', { retryAfter: 1.2 });
  }

  @Get('unauthorized')
  unauthorized() {
    throw new ProblemError('unauthorized', 'A token is missing');
  }

  @Get('forbidden')
  forbidden() {
    throw new ForbiddenException();
  }

  @Get('broken')
  broken() {
    throw new Error('the password is sesame');
  }
}

@Module({ controllers: [Calls] })
class Demo {}

const lines: Record<string, unknown>[] = [];
let app: NestFastifyApplication;
let base: string;

beforeAll(async () => {
  app = await NestFactory.create<NestFastifyApplication>(
    Demo,
    new FastifyAdapter({ bodyLimit: 1_000, genReqId: () => 'call-7' }),
    {
      logger: false,
    },
  );
  const logger = createLogger({
    app: 'gateway',
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  app.useGlobalPipes(validationPipe());
  app.useGlobalFilters(new ProblemFilter(logger));
  await app.listen(0, '127.0.0.1');
  base = await app.getUrl();
});

afterAll(() => app.close());

beforeEach(() => {
  lines.length = 0;
});

const post = (body: string, type = 'application/json') =>
  fetch(`${base}/topics`, { method: 'POST', body, headers: { 'content-type': type } });

describe('ProblemFilter', () => {
  it('answers an error of the catalogue as RFC 9457 problem document', async () => {
    const response = await fetch(`${base}/problem`);
    expect(response.status).toBe(429);
    expect(response.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
    expect(response.headers.get('retry-after')).toBe('2');
    expect(await response.json()).toEqual({
      type: 'urn:posthorn:problem:rate_limited',
      title: 'Too many requests',
      status: 429,
      detail: 'Slow down',
      code: 'rate_limited',
    });
  });

  it('asks for a token where one is missing', async () => {
    const response = await fetch(`${base}/unauthorized`);
    expect(response.headers.get('www-authenticate')).toBe('Bearer');
  });

  it('answers a body that is not valid with a JSON pointer for each finding', async () => {
    const response = await post(JSON.stringify({ name: 3, limits: { retention: 'long' } }));
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({
      code: 'request_invalid',
      errors: [
        { path: '/name', message: 'name must be a string' },
        { path: '/limits/retention', message: 'retention must be an integer number' },
      ],
    });
  });

  it('names a member that is not known, where the call takes no others', async () => {
    const body = { nmae: 'a', name: 'a', limits: { retention: 1 } };
    const strict = validationPipe({ forbidNonWhitelisted: true });
    await expect(strict.transform(body, { type: 'body', metatype: Topic })).rejects.toMatchObject({
      code: 'request_invalid',
      errors: [{ path: '/nmae', message: 'nmae is not known' }],
    });
  });

  it.each([
    ['malformed JSON', '{"name":', 'application/json', 422, 'request_invalid'],
    ['a content type that nobody reads', '<a/>', 'application/xml', 422, 'request_invalid'],
    [
      'a body that is too large',
      JSON.stringify('x'.repeat(2_000)),
      'application/json',
      413,
      'payload_too_large',
    ],
  ])('answers %s from the catalogue', async (_, body, type, status, code) => {
    const response = await post(body, type);
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    expect(await response.json()).toMatchObject({ code, status });
  });

  it('answers a route that does not exist', async () => {
    const response = await fetch(`${base}/nowhere`);
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ code: 'route_not_found' });
  });

  it("answers Nest's own exceptions from the catalogue", async () => {
    expect(await (await fetch(`${base}/forbidden`)).json()).toMatchObject({ code: 'forbidden', status: 403 });
  });

  it('logs what is unexpected, with the id of the call and without its query, and tells the caller nothing of it', async () => {
    const response = await fetch(`${base}/broken?token=sesame`);
    expect(response.status).toBe(500);
    expect(await response.text()).not.toMatch(/sesame|at /);
    expect(lines).toMatchObject([
      { msg: 'request failed', request: 'call-7', method: 'GET', path: '/broken' },
    ]);
  });
});
