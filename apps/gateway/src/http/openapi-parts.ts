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
