import { type ArgumentsHost, Catch } from '@nestjs/common';
import type { ProblemCode } from '@posthorn/contracts';
import { type Logger, ProblemFilter, type Tally, toProblem } from '@posthorn/service';

/** Answers with problem documents, and counts them by code. */
@Catch()
export class CountingProblemFilter extends ProblemFilter {
  readonly #counts: Record<ProblemCode, Tally>;

  constructor(logger: Logger, counts: Record<ProblemCode, Tally>) {
    super(logger);
    this.#counts = counts;
  }

  override catch(error: unknown, host: ArgumentsHost): void {
    const problem = toProblem(error);
    this.#counts[problem.code].inc();
    super.catch(problem, host);
  }
}
