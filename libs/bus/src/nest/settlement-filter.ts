import { type ArgumentsHost, Catch, type RpcExceptionFilter } from '@nestjs/common';
import { type Observable, throwError } from 'rxjs';

/**
 * Hands what a handler throws to the transport as it is. Without it Nest turns everything but its own
 * exceptions into `Internal server error`, and settlement.ts could not tell a failure that passes from one
 * that does not. For `app.useGlobalFilters(new SettlementFilter())` of an app on a JetStreamServer.
 */
@Catch()
export class SettlementFilter implements RpcExceptionFilter {
  catch(error: unknown, _host: ArgumentsHost): Observable<never> {
    return throwError(() => error);
  }
}
