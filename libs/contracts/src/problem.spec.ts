import { describe, expect, it } from '@jest/globals';
import { asProblem, isProblemCode, PROBLEMS, ProblemError, toProblemDocument } from './problem.js';

describe('a problem', () => {
  it('is a document of RFC 9457 with its code and findings', () => {
    const errors = [{ path: '/title', message: 'must be a text' }];
    const problem = new ProblemError('payload_invalid', 'The payload does not fit', {
      errors,
      cause: new Error('inside'),
    });
    expect(toProblemDocument(problem)).toEqual({
      type: 'urn:posthorn:problem:payload_invalid',
      title: PROBLEMS.payload_invalid.title,
      status: 422,
      detail: 'The payload does not fit',
      code: 'payload_invalid',
      errors,
    });
  });

  it('shows nothing of an unexpected error, and keeps it as its cause', () => {
    const cause = new Error('password=secret');
    const problem = asProblem(cause);
    expect(JSON.stringify(toProblemDocument(problem))).not.toContain('secret');
    expect(problem).toMatchObject({ code: 'internal', status: 500, cause });
  });

  it('stays what it is', () => {
    const problem = new ProblemError('rate_limited', 'Slower', { retryAfter: 3 });
    expect(asProblem(problem)).toBe(problem);
    expect(problem.retryAfter).toBe(3);
  });

  it('says when to try again where a service is away, whoever says so', () => {
    expect(new ProblemError('unavailable', 'Away').retryAfter).toBe(1);
    expect(new ProblemError('unavailable', 'Away', { retryAfter: 5 }).retryAfter).toBe(5);
    expect(new ProblemError('forbidden', 'No').retryAfter).toBeUndefined();
  });

  it('has one of the documented codes, each with its status', () => {
    expect(Object.fromEntries(Object.entries(PROBLEMS).map(([code, { status }]) => [code, status]))).toEqual({
      unauthorized: 401,
      token_expired: 401,
      forbidden: 403,
      audience_not_found: 404,
      topic_not_found: 404,
      notification_not_found: 404,
      dead_letter_not_found: 404,
      token_not_found: 404,
      token_limit: 429,
      timeline_entry_not_found: 404,
      route_not_found: 404,
      topic_conflict: 409,
      idempotency_conflict: 409,
      payload_too_large: 413,
      request_invalid: 422,
      payload_invalid: 422,
      subscription_limit: 429,
      rate_limited: 429,
      publish_quota: 429,
      storage_quota: 429,
      internal: 500,
      not_implemented: 501,
      unavailable: 503,
    });
  });

  it('is recognised by its code, and by nothing that objects inherit', () => {
    expect(isProblemCode('unavailable')).toBe(true);
    for (const other of ['toString', '__proto__', 'constructor', '', undefined, 503, ['unavailable']]) {
      expect(isProblemCode(other)).toBe(false);
    }
  });
});
