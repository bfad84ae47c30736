/** Schemas as tenants may register them, with all that could trip up a reader of the document they end up in. */
import { checkTenantSchema } from '@posthorn/contracts';
import fc from 'fast-check';

type Schema = Record<string, unknown> | boolean;

const NAMES = [
  ...['a', 'b', 'schema', 'schemaFormat', 'payload', 'type', 'items', 'properties', 'allOf', 'definitions'],
  ...[
    '$ref',
    '$id',
    '$schema',
    '$defs',
    '$anchor',
    'constructor',
    'hasOwnProperty',
    'toString',
    '<<',
    '=',
    '~',
  ],
  ...['', 'a/b~c %', 'é', 'x-y', 'x-parser-schema-id', '\u2028', '\u0085', '#', '?', '"', '{a}', '[0]', '0'],
];
const name = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...NAMES) },
  { weight: 1, arbitrary: fc.constantFrom('a', '$ref', '<<', 'hasOwnProperty') },
);
/** `__proto__` cannot be described by a property; a pattern can be that word. */
const pattern = fc.constantFrom(
  '^a',
  'b$',
  '.',
  '$ref',
  '^\\$ref$',
  '__proto__',
  'constructor',
  '^<<$',
  '<<',
);
const scalar = fc.constantFrom<unknown[]>(null, true, 0, 1, 2.5, 'a', '', 'http://127.0.0.1:9/x', '\u2028');

const { value: anyValue } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    scalar,
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(name, tie('value'), { maxKeys: 3 }),
  ),
}));

const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'];

/** A schema whose references lead to some of `targets`. */
function schemaOf(targets: readonly string[]): fc.Arbitrary<Schema> {
  const { schema } = fc.letrec<{ schema: Schema }>((tie) => {
    const one = tie('schema');
    const some = fc.array(one, { minLength: 1, maxLength: 2 });
    const named = fc.dictionary(name, one, { maxKeys: 3 });
    const keywords: Record<string, fc.Arbitrary<unknown>> = {
      ...(targets.length > 0 && { $ref: fc.constantFrom(...targets) }),
      type: fc.oneof(fc.constantFrom(...TYPES), fc.constant(['object', 'null'])),
      enum: fc.array(anyValue, { minLength: 1, maxLength: 3 }),
      const: anyValue,
      properties: named,
      patternProperties: fc.dictionary(pattern, one, { maxKeys: 2 }),
      additionalProperties: one,
      unevaluatedProperties: one,
      propertyNames: one,
      required: fc.uniqueArray(name, { maxLength: 2 }),
      dependentRequired: fc.dictionary(name, fc.uniqueArray(name, { maxLength: 2 }), { maxKeys: 2 }),
      dependentSchemas: named,
      minProperties: fc.nat(2),
      prefixItems: some,
      items: one,
      unevaluatedItems: one,
      contains: one,
      minContains: fc.nat(2),
      maxContains: fc.nat(2),
      allOf: some,
      anyOf: some,
      oneOf: some,
      not: one,
      if: one,
      // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
      then: one,
      else: one,
      format: fc.constantFrom('date-time', 'uuid', 'uri'),
      title: fc.constantFrom('a', '\u2028'),
      default: anyValue,
      examples: fc.array(anyValue, { maxLength: 2 }),
      contentSchema: fc.constant({ $ref: 'http://127.0.0.1:9/x' }),
      deprecated: fc.boolean(),
    };
    return {
      schema: fc.oneof(
        { maxDepth: 2, withCrossShrink: true },
        fc.boolean(),
        fc
          .subarray(Object.keys(keywords), { maxLength: 4 })
          .chain((used) =>
            fc.record(Object.fromEntries(used.map((keyword) => [keyword, keywords[keyword]!]))),
          ),
      ),
    };
  });
  return schema;
}

const step = (text: string) =>
  encodeURIComponent(text.replaceAll('~', '~0').replaceAll('/', '~1')).replaceAll('%24', '$');

/** Any schema that the registry accepts: an object, with definitions that refer to each other. */
export const anyTenantSchema: fc.Arbitrary<Record<string, unknown>> = fc
  .tuple(fc.uniqueArray(name, { minLength: 1, maxLength: 3 }), fc.constantFrom('$defs', 'definitions'))
  .chain(([names, keyword]) => {
    const pointers = names.map((one) => `#/${keyword}/${step(one)}`);
    const definitions = names.map((_, i) => schemaOf(pointers.slice(0, i)));
    // Each definition is led to from somewhere, with or without rules beside the reference.
    const uses = fc.tuple(...pointers.map((pointer) => fc.tuple(name, schemaOf([]), fc.constant(pointer))));
    return fc.tuple(schemaOf(pointers), uses, ...definitions).map(([root, used, ...schemas]) => ({
      ...(typeof root === 'boolean' ? {} : root),
      properties: Object.fromEntries(
        used.map(([member, beside, $ref]) => [
          member,
          { ...(typeof beside === 'boolean' ? {} : beside), $ref },
        ]),
      ),
      [keyword]: Object.fromEntries(names.map((one, i) => [one, schemas[i]])),
    }));
  })
  .map((schema) => JSON.parse(JSON.stringify(schema)))
  .filter((schema) => checkTenantSchema(schema).length === 0);

/** Objects whose members are named as those that the schemas speak of. */
export const anyPayload: fc.Arbitrary<unknown> = fc
  .oneof(anyValue, fc.dictionary(name, anyValue, { maxKeys: 4 }))
  .map((payload) => JSON.parse(JSON.stringify(payload)));
