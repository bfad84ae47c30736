import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { anyPayload, anyTenantSchema } from '../../../../test/support/tenant-schemas.js';
import { compileTenantSchema } from '../schema.js';
import { portableSchema } from './portable-schema.js';

const AT = '#/channels/a/messages/event/payload/schema';

/** Every member named `$ref` whose value is a text: what readers of a document resolve. */
function references(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, member]) =>
    name === '$ref' && typeof member === 'string' ? [member] : references(member),
  );
}

describe("a tenant's schema in a document", () => {
  it('means what the registered one means', () => {
    fc.assert(
      fc.property(
        anyTenantSchema,
        fc.array(anyPayload, { minLength: 20, maxLength: 20 }),
        (schema, payloads) => {
          const registered = compileTenantSchema(schema);
          const shown = compileTenantSchema(JSON.parse(JSON.stringify(portableSchema(schema, '#'))));
          for (const payload of payloads)
            expect(shown(payload).length > 0).toBe(registered(payload).length > 0);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('refers to its own definitions only, by pointers from the root of the document', () => {
    fc.assert(
      fc.property(anyTenantSchema, (schema) => {
        const shown = portableSchema(schema, AT) as { $defs?: object };
        for (const ref of references(shown)) {
          expect(ref.startsWith(`${AT}/$defs/`)).toBe(true);
          expect(Object.keys(shown.$defs ?? {})).toContain(ref.slice(`${AT}/$defs/`.length));
        }
      }),
      { numRuns: 500 },
    );
  });

  it("keeps its author's names and notes where nobody trips over them", () => {
    const schema = {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      title: 'Task',
      type: 'object',
      properties: { tags: { type: 'array', items: { $ref: '#/$defs/tag' } } },
      examples: [{ tags: ['a'] }, { $ref: 'file:///etc/passwd' }],
      default: { tags: [] },
      $defs: { tag: { type: 'string' }, unused: { type: 'null' } },
    };
    expect(portableSchema(schema, AT)).toEqual({
      title: 'Task',
      type: 'object',
      properties: { tags: { type: 'array', items: { allOf: [{ $ref: `${AT}/$defs/tag` }] } } },
      default: { tags: [] },
      $defs: { tag: { type: 'string' } },
    });
  });

  it('keeps the rules that stand beside a reference', () => {
    const schema = {
      $defs: { base: { type: 'object', properties: { a: true } } },
      $ref: '#/$defs/base',
      required: ['a'],
      unevaluatedProperties: false,
    };
    expect(portableSchema(schema, AT)).toEqual({
      required: ['a'],
      unevaluatedProperties: false,
      allOf: [{ $ref: `${AT}/$defs/base` }],
      $defs: { base: { type: 'object', properties: { a: true } } },
    });
  });

  it('describes members of names that readers take for their own by patterns', () => {
    const schema = { type: 'object', properties: { $ref: { const: { $ref: 'http://example.org' } } } };
    expect(portableSchema(schema, AT)).toEqual({
      type: 'object',
      patternProperties: {
        '^\\$ref$': {
          allOf: [
            {
              anyOf: [
                {
                  type: 'object',
                  required: ['$ref'],
                  properties: {},
                  patternProperties: { '^\\$ref$': { const: 'http://example.org' } },
                  additionalProperties: false,
                },
              ],
            },
          ],
        },
      },
    });
  });
});
