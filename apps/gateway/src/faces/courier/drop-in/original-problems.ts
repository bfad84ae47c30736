import { Catch } from '@nestjs/common';
import type { ProblemError } from '@posthorn/contracts';
import type { ShownProblem } from '@posthorn/service';
import type { FastifyRequest } from 'fastify';
import { CountingProblemFilter } from '../../../http/counting-problem-filter.js';
import { wantsOriginal } from './calls.js';

/** Tells errors as the original did, `{status, error, code}`, with the statuses and codes of the catalogue. */
@Catch()
export class OriginalProblemFilter extends CountingProblemFilter {
  protected override show(problem: ProblemError, request: FastifyRequest): ShownProblem {
    if (!wantsOriginal(request)) return super.show(problem, request);
    return { contentType: 'application/json; charset=utf-8', body: originalError(problem) };
  }
}

/** The shape has no room for findings: the text names them. */
function originalError({ status, code, detail, errors = [] }: ProblemError): object {
  const findings = errors.map(({ path, message }) => `${path} ${message}`.trim());
  return { status, error: [detail, ...findings].join('; '), code };
}
