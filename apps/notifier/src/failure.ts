import { PermanentFailure } from '@posthorn/bus';

/** Nobody has said who manages the community: the event waits for that as a dead letter. */
export class ManagersUnknown extends PermanentFailure {
  constructor(community: string) {
    super('managers_unknown', `The managers of the community ${JSON.stringify(community)} are not known`, {
      waitsFor: community,
    });
  }
}

/**
 * What PostgreSQL will refuse however often it is asked (SQLSTATE classes 22, 23, 54: data, constraint,
 * program limit); undefined for other errors.
 */
export function refusedByDatabase(error: unknown): PermanentFailure | undefined {
  const { code } = ((error as { driverError?: unknown } | null)?.driverError ?? {}) as { code?: unknown };
  if (typeof code !== 'string' || !/^(22|23|54)...$/.test(code)) return undefined;
  return new PermanentFailure('payload_invalid', `PostgreSQL cannot store it (SQLSTATE ${code})`, {
    cause: error,
  });
}
