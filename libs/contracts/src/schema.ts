/** Checks of payloads: the catalogue's and those of schemas that tenants register. */
import { CATALOGUE } from './catalogue/index.js';
import { exceedsDepth } from './json.js';
import { compileSchema, type PayloadCheck, type SchemaObject } from './json-schema.js';
import type { Finding } from './problem.js';
import { ProblemError } from './problem.js';
import { inspectSchema } from './tenant-schema.js';

export { DEPTH_LIMIT, exceedsDepth } from './json.js';
export { FORMATS, type PayloadCheck, WORK_LIMIT } from './json-schema.js';
export { checkTenantSchema, SCHEMA_LIMITS } from './tenant-schema.js';

const checks = new Map<string, PayloadCheck>();

/** Compiles a schema of our own: without references, and linear in the payload's size. */
export function compilePayload(schema: object): PayloadCheck {
  const noReference = (ref: string): never => {
    throw new TypeError(`a schema of the catalogue has the reference ${ref}`);
  };
  return compileSchema(schema as SchemaObject, noReference, Number.POSITIVE_INFINITY);
}

/**
 * The check of a documented topic's payload, compiled when first asked for.
 * @throws RangeError for a name that the catalogue does not have.
 */
export function checkForCatalogue(name: string): PayloadCheck {
  let check = checks.get(name);
  if (check === undefined) {
    const entry = CATALOGUE.get(name);
    if (entry === undefined) throw new RangeError(`the catalogue has no topic ${JSON.stringify(name)}`);
    check = compilePayload(entry.payload);
    checks.set(name, check);
  }
  return check;
}

/**
 * Compiles a schema that a tenant registered. What the check holds is freed with it.
 * @throws ProblemError `request_invalid` with the findings of `checkTenantSchema`.
 */
export function compileTenantSchema(schema: unknown): PayloadCheck {
  const inspected = inspectSchema(schema);
  if (inspected.findings.length > 0) {
    throw new ProblemError('request_invalid', 'The schema cannot be used', { errors: inspected.findings });
  }
  const check = compileSchema(inspected.schema, inspected.resolve);
  const tooDeep: readonly Finding[] = [{ path: '', message: 'nests too many levels' }];
  return (payload) => (exceedsDepth(payload) ? tooDeep : check(payload));
}
