/** The drop-in mode on REST, for clients of the original server (docs/protocols/courier.md, "Drop-in mode"). */
import type { INestApplication } from '@nestjs/common';
import type { GatewayCore } from '../../../core.js';
import { OriginalAnswers } from './original-answers.js';
import { OriginalProblemFilter } from './original-problems.js';

/** Answers the calls of the Courier face as the original did, unless they ask for the contract. */
export function serveOriginalClients(app: INestApplication, core: GatewayCore): void {
  app.useGlobalInterceptors(new OriginalAnswers((name) => core.bus.topics.audience(name)));
  // Of several filters that catch everything, Nest asks the one that came last.
  app.useGlobalFilters(new OriginalProblemFilter(core.service.logger, core.metrics.errors));
}
