/** Words of which the faces make their parts of the OpenAPI document. */
import { PROBLEMS, type ProblemCode } from '@posthorn/contracts';

export type Schema = Record<string, unknown>;

export const text = (description: string, more: Schema = {}): Schema => ({
  type: 'string',
  description,
  ...more,
});
export const object = (
  properties: Record<string, Schema>,
  required: string[] = Object.keys(properties),
): Schema => ({
  type: 'object',
  properties,
  required,
});
export const json = (schema: Schema) => ({ 'application/json': { schema } });
export const answer = (description: string, schema: Schema) => ({ description, content: json(schema) });
export const body = (schema: Schema) => ({ required: true, content: json(schema) });
export const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });
export const query = (name: string, schema: Schema) => ({ name, in: 'query', schema });
export const path = (name: string, description: string) => ({
  name,
  in: 'path',
  required: true,
  schema: text(description),
});

/** The problems of a call beside those that every call may have. */
export function problems(...codes: ProblemCode[]) {
  const every: ProblemCode[] = [
    'unauthorized',
    'token_expired',
    'audience_not_found',
    'request_invalid',
    'unavailable',
  ];
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of [...every, ...codes]) {
    const { status } = PROBLEMS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const entries = [...byStatus].map(([status, some]) => [
    String(status),
    { description: some.join(', '), content: { 'application/problem+json': { schema: ref('Problem') } } },
  ]);
  return Object.fromEntries(entries);
}

type Operations = Record<string, object>;

/** Names each operation after its method and path (`putNotificationsIdRead`): client generators name calls after it. */
export function withOperationIds<P extends Record<string, Operations>>(paths: P): P {
  const named = Object.entries(paths).map(([path, operations]) => {
    const words = path.match(/[a-z0-9]+/gi) ?? [];
    const name = words
      .slice(words[0] === 'v1' ? 1 : 0)
      .map(capitalized)
      .join('');
    const entries = Object.entries(operations).map(([method, operation]) => [
      method,
      { operationId: method + name, ...operation },
    ]);
    return [path, Object.fromEntries(entries)];
  });
  return Object.fromEntries(named);
}

function capitalized(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
