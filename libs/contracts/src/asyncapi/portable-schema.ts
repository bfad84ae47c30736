/**
 * A tenant's schema as a part of a larger document.
 *
 * It means the same as the registered one, in JSON Schema 2020-12. What is written otherwise is what readers of
 * whole documents take for their own: a `$ref` leads from the root of the document, stands alone, and is nowhere
 * but where it is one. Readers resolve any member of that name, in a `const` too, even by fetching what it names.
 */
import { KEYWORDS, type SchemaObject } from '../json-schema.js';

type Schema = SchemaObject | boolean;
type Named = readonly [name: string, schema: Schema];

/** Members that readers written in JavaScript, or reading JSON as YAML, take for something else. */
const HAZARDS: ReadonlySet<string> = new Set(['$ref', '<<', ...Object.getOwnPropertyNames(Object.prototype)]);

/**
 * The schema with its references led to where it will stand.
 * @param schema one that the registry accepted: of bounded depth, with local references that end
 * @param at the JSON pointer of the schema in the document, as a URI fragment: `#/channels/…/schema`
 */
export function portableSchema(schema: Schema, at: string): Schema {
  return new Writer(schema, at).write();
}

class Writer {
  readonly #schema: Schema;
  readonly #at: string;
  readonly #names = new Map<SchemaObject, string>();
  readonly #definitions = new Map<string, Schema>();

  constructor(schema: Schema, at: string) {
    this.#schema = schema;
    this.#at = at;
  }

  write(): Schema {
    const root = this.#copy(this.#schema);
    if (typeof root === 'boolean' || this.#definitions.size === 0) return root;
    return { ...root, $defs: Object.fromEntries(this.#definitions) };
  }

  #copy(schema: Schema): Schema {
    if (typeof schema === 'boolean') return schema;
    const node: Record<string, unknown> = {};
    const beside: Schema[] = [];
    for (const [keyword, value] of Object.entries(schema)) {
      const holds = KEYWORDS.get(keyword);
      if (keyword === '$ref') beside.push(this.#reference(value as string));
      else if (keyword === 'const') beside.push(...this.#only(node, keyword, [value]));
      else if (keyword === 'enum') beside.push(...this.#only(node, keyword, value as unknown[]));
      else if (keyword === 'dependentRequired') {
        const required = Object.entries(value as Record<string, unknown>);
        beside.push(...split(node, keyword, required, (names) => ({ required: names })));
      } else if (keyword === 'dependentSchemas') {
        beside.push(...split(node, keyword, this.#named(value), (sub) => sub as Schema));
      } else if (keyword === 'properties' || keyword === 'patternProperties') continue;
      else if (holds === 'schema') node[keyword] = this.#copy(value as Schema);
      else if (holds === 'schemas') node[keyword] = (value as Schema[]).map((sub) => this.#copy(sub));
      else if (holds === 'rule') node[keyword] = value;
      else if (holds === 'note' && keyword !== '$schema' && !hasHazard(value)) node[keyword] = value;
    }
    this.#copyMembers(node, schema);
    if (beside.length > 0) node.allOf = [...beside, ...((node.allOf as Schema[] | undefined) ?? [])];
    return node;
  }

  /** `properties` and `patternProperties`: a member of a hazardous name is described by a pattern. */
  #copyMembers(node: Record<string, unknown>, { properties, patternProperties }: SchemaObject): void {
    const members = this.#named(properties);
    const plain = members.filter(([name]) => !HAZARDS.has(name));
    const patterns = new Map<string, Schema>();
    const described: readonly Named[] = [
      ...this.#named(patternProperties),
      ...members.filter(([name]) => HAZARDS.has(name)).map(([name, sub]) => [exactly(name), sub] as const),
    ];
    for (const [pattern, sub] of described) {
      let free = pattern;
      while (HAZARDS.has(free) || patterns.has(free)) free = `(?:${free})`;
      patterns.set(free, sub);
    }
    if (plain.length > 0) node.properties = Object.fromEntries(plain);
    if (patterns.size > 0) node.patternProperties = Object.fromEntries(patterns);
  }

  #named(value: unknown): readonly Named[] {
    return Object.entries((value ?? {}) as Record<string, Schema>).map(([name, sub]) => [
      name,
      this.#copy(sub),
    ]);
  }

  /** `const` and `enum`: values with hazardous members are described member by member. */
  #only(node: Record<string, unknown>, keyword: string, values: readonly unknown[]): Schema[] {
    if (values.some(hasHazard)) return [{ anyOf: values.map(equalTo) }];
    node[keyword] = keyword === 'const' ? values[0] : values;
    return [];
  }

  /** A subschema that is referred to stands among the definitions, once. */
  #reference(ref: string): Schema {
    const target = targetOf(this.#schema, ref);
    if (typeof target === 'boolean') return target;
    let name = this.#names.get(target);
    if (name === undefined) {
      name = this.#nameFor(ref);
      this.#names.set(target, name);
      this.#definitions.set(name, true);
      this.#definitions.set(name, this.#copy(target));
    }
    return { $ref: `${this.#at}/$defs/${name}` };
  }

  /** The author's name for it where that is a plain word that is still free. */
  #nameFor(ref: string): string {
    const given = /\/([A-Za-z]\w*)$/.exec(ref)?.[1];
    if (given !== undefined && !HAZARDS.has(given) && !this.#definitions.has(given)) return given;
    for (let n = this.#definitions.size + 1; ; n++) {
      if (!this.#definitions.has(`schema${n}`)) return `schema${n}`;
    }
  }
}

/** The subschema to which a local reference leads. */
function targetOf(schema: Schema, ref: string): Schema {
  const steps = decodeURIComponent(ref.slice(1)).split('/').slice(1);
  const target = steps.reduce<unknown>(
    (value, step) => Object(value)[step.replaceAll('~1', '/').replaceAll('~0', '~')],
    schema,
  );
  return target as Schema;
}

/** What a keyword asks for when a member is there; for hazardous names by `if` and `then`. */
function split<T>(
  node: Record<string, unknown>,
  keyword: string,
  entries: readonly (readonly [string, T])[],
  then: (asked: T) => Schema,
): Schema[] {
  const plain = entries.filter(([name]) => !HAZARDS.has(name));
  if (plain.length > 0) node[keyword] = Object.fromEntries(plain);
  return entries
    .filter(([name]) => HAZARDS.has(name))
    .map(([name, asked]) => conditional({ type: 'object', required: [name] }, then(asked)));
}

function conditional(condition: Schema, consequence: Schema): Schema {
  // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
  return { if: condition, then: consequence };
}

/** A schema of one value. */
function equalTo(value: unknown): Schema {
  if (!hasHazard(value)) return { const: value };
  if (Array.isArray(value)) {
    return {
      type: 'array',
      minItems: value.length,
      ...(value.length > 0 && { prefixItems: value.map(equalTo) }),
      items: false,
    };
  }
  const members = Object.entries(value as object).map(([name, member]) => [name, equalTo(member)] as const);
  const plain = members.filter(([name]) => !HAZARDS.has(name));
  const hazards = members.filter(([name]) => HAZARDS.has(name));
  return {
    type: 'object',
    required: members.map(([name]) => name),
    properties: Object.fromEntries(plain),
    patternProperties: Object.fromEntries(hazards.map(([name, member]) => [exactly(name), member])),
    additionalProperties: false,
  };
}

function hasHazard(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (Array.isArray(value)) return value.some(hasHazard);
  return Object.entries(value).some(([name, member]) => HAZARDS.has(name) || hasHazard(member));
}

/** A regular expression of one text. */
function exactly(text: string): string {
  return `^${text.replace(/[^\w<]/g, '\\$&')}$`;
}
