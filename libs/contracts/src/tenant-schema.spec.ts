import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from '@jest/globals';
import { cpuTime } from '@posthorn/testing';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { CATALOGUE } from './catalogue/index.js';
import { checkTenantSchema, compileTenantSchema } from './schema.js';

const times = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));
const named = <T>(count: number, make: (i: number) => [string, T]): Record<string, T> =>
  Object.fromEntries(times(count, make));
/** How long a second of this machine is just now: parsing some megabytes of JSON. */
const control = (): number => {
  const text = JSON.stringify(times(200_000, (i) => ({ i })));
  return cpuTime(() => JSON.parse(text));
};
const collectGarbage = (): void => {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
};
/** As a value arrives: plain objects, whatever a generator made. */
const received = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const places = (schema: unknown) => checkTenantSchema(schema).map(({ path }) => path);
const told = (schema: unknown) =>
  checkTenantSchema(schema)
    .map(({ path, message }) => `${path} ${message}`)
    .join('\n');

describe("a tenant's schema", () => {
  it('may use what 2020-12 has for checking', () => {
    const schema = {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      title: 'Task',
      $defs: { tag: { type: 'string', pattern: '^[a-z]+$', maxLength: 20 }, 'a/b~c %': { type: 'null' } },
      type: 'object',
      properties: {
        id: { type: 'string', format: 'uuid' },
        tags: { type: 'array', items: { $ref: '#/$defs/tag' }, uniqueItems: true, maxItems: 10 },
        none: { $ref: '#/$defs/a~1b~0c%20%25' },
        kind: { enum: ['a', { b: 1 }] },
      },
      required: ['id'],
      dependentRequired: { tags: ['kind'] },
      unevaluatedProperties: false,
    };
    expect(checkTenantSchema(schema)).toEqual([]);
    const check = compileTenantSchema(schema);
    const id = '0188f2b0-1234-7abc-8def-0123456789ab';
    expect(check({ id, tags: ['x', 'y'], none: null, kind: { b: 1 } })).toEqual([]);
    expect(check({ id: 'x', tags: ['x', 'x', 'X'], more: 1 })).toEqual(
      expect.arrayContaining([
        { path: '/id', message: 'must match format "uuid"' },
        { path: '/tags', message: 'must not hold the same item twice' },
        { path: '/tags/2', message: 'must match pattern "^[a-z]+$"' },
        { path: '/kind', message: 'is required' },
        { path: '/more', message: 'is not allowed' },
      ]),
    );
  });

  it.each<[string, object]>([
    ['an alternative that does not fit', { anyOf: [{ properties: { a: true }, required: ['a'] }] }],
    [
      'an alternative that takes all members',
      { anyOf: [{ additionalProperties: true }, { minProperties: 2 }] },
    ],
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
    ['a condition', { if: { properties: { a: true }, required: ['a'] }, then: { properties: { c: true } } }],
  ])('may have patterns beside %s', (_, alternatives) => {
    const rules = { ...alternatives, patternProperties: { '^b$': { type: 'string' } } };
    const check = compileTenantSchema(rules);
    const closed = compileTenantSchema({ ...rules, unevaluatedProperties: false });
    for (const findings of [check({ b: 1 }), closed({ b: 1 })]) {
      expect(findings).toContainEqual({ path: '/b', message: 'must be string' });
    }
    const fits = { a: 1, b: 'x' };
    expect([check(fits), closed(fits)]).toEqual([[], []]);
  });

  it('may be what the catalogue itself uses', () => {
    for (const { payload } of CATALOGUE.values()) {
      expect(checkTenantSchema(JSON.parse(JSON.stringify(payload)))).toEqual([]);
    }
  });

  it('may be a boolean, and nothing else that is no object', () => {
    expect(checkTenantSchema(true)).toEqual([]);
    for (const value of [null, 1, 'a', [], undefined]) expect(places(value)).toEqual(['']);
  });

  it.each([
    ['a misspelt keyword', { properties: { a: { requried: ['b'] } } }, '/properties/a/requried'],
    ['an unknown format', { items: { format: 'phone' } }, '/items/format'],
    ['an identifier', { $defs: { a: { $id: 'urn:a' } } }, '/$defs/a/$id'],
    ['an anchor', { $anchor: 'a' }, '/$anchor'],
    ['a dynamic reference', { $dynamicRef: '#a' }, '/$dynamicRef'],
    ['a reference to elsewhere', { $ref: 'https://example.com/schema' }, '/$ref'],
    ['a reference to an anchor', { $ref: '#a' }, '/$ref'],
    ['a reference to its whole', { items: { $ref: '#' } }, '/items/$ref'],
    ['a reference that leads nowhere', { $ref: '#/$defs/a' }, '/$ref'],
    ['a reference to what is no subschema', { enum: [{}], items: { $ref: '#/enum/0' } }, '/items/$ref'],
    ['a malformed reference', { $ref: '#/%zz' }, '/$ref'],
    ['a reference to itself', { $defs: { a: { items: { $ref: '#/$defs/a' } } } }, '/$defs/a/items/$ref'],
    ['another draft', { $schema: 'http://json-schema.org/draft-07/schema#' }, '/$schema'],
    ['a look-ahead', { pattern: '(?=a)b' }, '/pattern'],
    ['a back-reference in a name', { patternProperties: { '(a)\\1': true } }, '/patternProperties/(a)\\1'],
    ['a malformed expression', { pattern: '(' }, '/pattern'],
    ['unbounded uniqueItems', { uniqueItems: true }, '/uniqueItems'],
    ['too large uniqueItems', { uniqueItems: true, maxItems: 257 }, '/uniqueItems'],
    ['a keyword of the wrong type', { properties: { a: { minLength: 'x' } } }, '/properties/a/minLength'],
    ['a member named __proto__', JSON.parse('{"properties":{"__proto__":{}}}'), '/properties/__proto__'],
    ['the old dependencies', { dependencies: {} }, '/dependencies'],
  ])('is refused for %s, naming the place', (_what, schema, place) => {
    expect(places(schema)).toEqual([place]);
    expect(() => compileTenantSchema(schema)).toThrow(expect.objectContaining({ code: 'request_invalid' }));
  });

  it('is refused beyond its limits', () => {
    const nest = (levels: number): object => (levels === 1 ? {} : { not: nest(levels - 1) });
    expect(checkTenantSchema(nest(16))).toEqual([]);
    expect(told(nest(17))).toMatch(/16 levels/);
    expect(told({ description: 'x'.repeat(32_768) })).toMatch(/32768 bytes/);
    expect(told({ anyOf: times(511, () => ({})) })).toBe('');
    expect(told({ anyOf: times(512, () => ({})) })).toMatch(/512 subschemas/);
    expect(told({ patternProperties: named(300, (i) => [`^a${i}b{1,9}$`, true]) })).toMatch(
      /2000 instructions/,
    );
    const repeated = {
      $defs: { e: { enum: times(3_000, (i) => i) } },
      anyOf: times(200, () => ({ $ref: '#/$defs/e' })),
    };
    expect(told(repeated)).toMatch(/131072 characters/);
    expect(checkTenantSchema({ properties: named(100, (i) => [`p${i}`, { format: 'x' }]) })).toHaveLength(20);
  });

  it('never takes long to refuse: doubled references, long chains, deep nesting, large expressions', () => {
    const doubled = named<object>(300, (i) => [
      `d${i}`,
      { allOf: times(2, () => ({ $ref: `#/$defs/d${i + 1}` })) },
    ]);
    const chain = named<object>(900, (i) => [`d${i}`, { $ref: `#/$defs/d${i + 1}` }]);
    const ring = named<object>(900, (i) => [`d${i}`, { $ref: `#/$defs/d${(i + 1) % 900}` }]);
    let deep: unknown = true;
    for (let i = 0; i < 200_000; i++) deep = { not: deep };
    const hostile = [
      { $defs: { ...doubled, d300: {} }, $ref: '#/$defs/d0' },
      { $defs: { ...chain, d900: {} }, $ref: '#/$defs/d0' },
      { $defs: ring, $ref: '#/$defs/d0' },
      deep,
      { patternProperties: named(60, (i) => [`${'a{999}'.repeat(70)}${i}`, true]) },
      {
        pattern: `${'('.repeat(250)}${')'.repeat(250)}`,
        allOf: times(60, () => ({ pattern: '(?:a{1000}){2}' })),
      },
    ];
    const limit = 20 * control() + 500;
    for (const schema of hostile) {
      expect(cpuTime(() => expect(checkTenantSchema(schema).length).toBeGreaterThan(0))).toBeLessThan(limit);
    }
  });
});

describe("a payload under a tenant's schema", () => {
  const anyJson = fc.letrec<{ json: unknown }>((tie) => ({
    json: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom(null, true, 0, -0, 1, 2.5, '', 'a', 'ab', '😀'),
      fc.array(tie('json'), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom('a', 'b', 'c', 'constructor', 'toString'), tie('json'), { maxKeys: 3 }),
    ),
  })).json;
  const count = fc.integer({ min: 0, max: 3 });
  const anySchema = fc.letrec<{ schema: object | boolean }>((tie) => {
    const schema = tie('schema');
    const some = fc.array(schema, { minLength: 1, maxLength: 3 });
    const byName = fc.dictionary(fc.constantFrom('a', 'b', 'constructor'), schema, { maxKeys: 2 });
    const values: Record<string, fc.Arbitrary<unknown>> = {
      type: fc.constantFrom('object', 'array', 'string', 'number', 'integer', 'boolean', 'null'),
      enum: fc.array(anyJson, { minLength: 1, maxLength: 3 }),
      const: anyJson,
      minimum: count,
      multipleOf: fc.constantFrom(1, 2, 0.5),
      minLength: count,
      maxLength: count,
      pattern: fc.constantFrom('^a', 'b$', '^(a+)+$'),
      minItems: count,
      prefixItems: some,
      items: schema,
      contains: schema,
      minContains: count,
      unevaluatedItems: schema,
      properties: byName,
      patternProperties: fc.dictionary(fc.constantFrom('^a', 'b'), schema, { maxKeys: 2 }),
      additionalProperties: schema,
      propertyNames: schema,
      required: fc.uniqueArray(fc.constantFrom('a', 'b', 'c'), { maxLength: 2 }),
      dependentRequired: fc.constant({ a: ['b'] }),
      dependentSchemas: byName,
      unevaluatedProperties: schema,
      allOf: some,
      anyOf: some,
      oneOf: some,
      not: schema,
      if: schema,
      else: schema,
      $ref: fc.constantFrom('#/$defs/first', '#/$defs/second'),
    };
    const keyword = fc.oneof(
      ...Object.entries(values).map(([name, value]) => value.map((v) => [name, v] as const)),
    );
    // Few keywords at once, else nearly nothing fits.
    const node = fc
      .array(keyword, { minLength: 1, maxLength: 3 })
      .map((keywords) => Object.fromEntries(keywords));
    return { schema: fc.oneof({ depthSize: 'small', withCrossShrink: true }, fc.boolean(), node) };
  }).schema;
  const withDefinitions = fc.record({
    $defs: fc.constant({
      first: { type: ['object', 'array'], minProperties: 1 },
      second: { $ref: '#/$defs/first' },
    }),
    allOf: fc.tuple(anySchema),
  });

  it('fits exactly where plain Ajv says so', () => {
    let fitting = 0;
    fc.assert(
      fc.property(withDefinitions.map(received), anyJson.map(received), (schema, payload) => {
        if (checkTenantSchema(schema).length > 0) return;
        const plain = new Ajv2020({
          logger: false,
          meta: false,
          multipleOfPrecision: 9,
          ownProperties: true,
          strict: false,
          validateSchema: false,
        });
        let expected: boolean;
        try {
          expected = plain.compile(schema as object)(payload);
        } catch {
          return; // Ajv's own comparison of a member named toString throws.
        }
        if (expected) fitting++;
        // Ajv takes inherited names for evaluated members: the next test says what holds here.
        const inherited = /constructor|toString/.test(JSON.stringify(payload));
        if (inherited && JSON.stringify(schema).includes('unevaluated')) return;
        const findings = compileTenantSchema(schema)(payload);
        expect(findings.length === 0).toBe(expected);
      }),
      { numRuns: 1_000 },
    );
    expect(fitting).toBeGreaterThan(100);
  });

  it('cannot pass off inherited names as its own members, nor its own as evaluated', () => {
    const choice = compileTenantSchema({
      anyOf: [{ properties: { a: true } }, true],
      unevaluatedProperties: false,
    });
    expect(choice({ a: 1 })).toEqual([]);
    for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty']) {
      const payload: unknown = JSON.parse(`{${JSON.stringify(name)}: 1}`);
      expect(choice(payload)).toEqual([{ path: `/${name}`, message: 'is not allowed' }]);
      expect(compileTenantSchema({ required: [name] })({})).toEqual([
        { path: `/${name}`, message: 'is required' },
      ]);
      expect(compileTenantSchema({ required: [name] })(payload)).toEqual([]);
      expect(compileTenantSchema({ additionalProperties: false })(payload)).toHaveLength(1);
      expect(compileTenantSchema({ enum: [{ a: 1 }] })(payload)).toHaveLength(1);
      expect(compileTenantSchema({ uniqueItems: true, maxItems: 9 })([payload, payload])).toHaveLength(1);
    }
  });

  it('is never echoed in what is said about it', () => {
    const check = compileTenantSchema({
      properties: {
        a: { type: 'number' },
        b: { enum: ['x'] },
        c: { pattern: '^x$' },
        d: { format: 'email' },
      },
    });
    const findings = check({ a: 'hunter2', b: 'hunter2', c: 'hunter2', d: 'hunter2' });
    expect(findings).toHaveLength(4);
    expect(JSON.stringify(findings)).not.toContain('hunter2');
  });

  it('gives at most 20 findings, with pointers of bounded length', () => {
    const findings = compileTenantSchema({ additionalProperties: { additionalProperties: false } })(
      named(100, (i) => [`k${i}`, { ['x'.repeat(1_000)]: 1 }]),
    );
    expect(findings).toHaveLength(20);
    expect(findings[0]).toEqual({ path: '/k0', message: 'is not allowed' });
  });

  it('nests at most 64 levels, without overflowing the stack', () => {
    let deep: unknown = 1;
    for (let i = 0; i < 200_000; i++) deep = [deep];
    expect(compileTenantSchema({ const: [1] })({ a: deep })).toEqual([
      { path: '', message: 'nests too many levels' },
    ]);
  });

  const list = (items: object, rules: object = {}) => ({ properties: { a: { items, ...rules } } });
  const strings = times(200, () => ({ type: 'string' }));
  const large = { a: times(32_000, () => 1) };
  const wide = named(6_000, (i) => [`k${i}`, 1]);
  it.each<[string, object, unknown]>([
    ['alternatives for each item', list({ anyOf: [...strings, { type: 'number' }] }), large],
    ['alternatives in contains', { properties: { a: { contains: { anyOf: strings } } } }, large],
    ['conditions for each item', list({ allOf: times(200, () => ({ minimum: 0 })) }), large],
    ['a long enum', list({ enum: times(3_000, (i) => i + 2) }), large],
    ['comparisons of the whole', { allOf: times(200, () => ({ not: { const: [1] } })) }, large],
    [
      'many required members',
      list({ required: times(3_000, (i) => `x${i}`) }),
      { a: times(20_000, () => ({})) },
    ],
    [
      'members evaluated often',
      { allOf: times(200, () => ({ additionalProperties: true })), unevaluatedProperties: false },
      wide,
    ],
    ['names against patterns', { patternProperties: named(100, (i) => [`(a|b)*a${i}`, true]) }, wide],
    ['a backtracking pattern', list({ pattern: '^(a+)+$' }), { a: [`${'a'.repeat(60_000)}!`] }],
    [
      'a pattern with many states',
      list({ pattern: '(?:a|b)*a(?:a|b){200}[^ab]' }),
      { a: times(60, (i) => `${i % 7 ? 'ab' : 'ba'}a`.repeat(350)) },
    ],
    [
      'a unique list of deep items',
      { properties: { a: { uniqueItems: true, maxItems: 256 } } },
      { a: times(250, (i) => [[times(100, () => 0), i]]) },
    ],
  ])('of 64 KiB is checked or refused in bounded time: %s', (_what, schema, payload) => {
    const check = compileTenantSchema(schema);
    const limit = 20 * control() + 1_000;
    expect(cpuTime(() => check(payload))).toBeLessThan(limit);
  });

  it('is refused, not let through, where the work runs out', () => {
    const check = compileTenantSchema(list({ anyOf: [...strings, { type: 'number' }] }));
    expect(check({ a: [1] })).toEqual([]);
    expect(check(large)).toEqual([{ path: '', message: expect.stringMatching(/more work/) }]);
    expect(check({ a: [1] })).toEqual([]);
  });

  it('of 1 MiB is checked where the schema is a plain one', () => {
    const item = {
      type: 'object',
      properties: { id: { type: 'string', format: 'uuid' }, n: { type: 'integer' } },
      required: ['id'],
    };
    const items = times(16_000, (n) => ({ id: '0188f2b0-1234-7abc-8def-0123456789ab', n }));
    expect(compileTenantSchema(list(item))({ a: items })).toEqual([]);
  });

  it('leaves nothing behind: a compiled schema is freed with its check', async () => {
    const compiled = new WeakRef(compileTenantSchema({ pattern: '^a', enum: ['a'], minLength: 1 }));
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
    expect(compiled.deref()).toBeUndefined();
  });
});
