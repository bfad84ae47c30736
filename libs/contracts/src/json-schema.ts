/**
 * JSON Schema 2020-12 for event payloads, run by Ajv under a budget of work.
 *
 * Schemas come from tenants and payloads from anybody, so neither may decide how long a check takes. A schema is
 * rebuilt before it is compiled: local references are written out (Ajv's own collect their errors in quadratic
 * time), only known keywords are kept, and each subschema pays for its work before it is evaluated.
 */
import {
  _,
  Ajv2020,
  type CodeKeywordDefinition,
  type ErrorObject,
  type KeywordDefinition,
  Name,
  type ValidateFunction,
} from 'ajv/dist/2020.js';
import { fastFormats } from 'ajv-formats/dist/formats.js';
import { Budget, Exhausted } from './budget.js';
import { boundedPointer, canonicalJson, exceedsDepth, pointerStep } from './json.js';
import { LinearRegExp } from './linear-regexp.js';
import type { Finding } from './problem.js';

/** Gives the findings of a payload: none when it fits, at most {@link FINDING_LIMIT}. */
export type PayloadCheck = (payload: unknown) => readonly Finding[];

export const FINDING_LIMIT = 20;

/** A schema as data: any member may be there. */
export type SchemaObject = Readonly<Record<string, unknown>>;

/** What a keyword's value holds. */
type Holds = 'schema' | 'schemas' | 'named schemas' | 'definitions' | 'rule' | 'note';

const holding = (holds: Holds, ...keywords: string[]): [string, Holds][] => keywords.map((k) => [k, holds]);

/** Every keyword that a schema may use. A note has no effect on a check. */
export const KEYWORDS: ReadonlyMap<string, Holds> = new Map([
  ...holding('schema', 'not', 'if', 'then', 'else', 'items', 'contains', 'unevaluatedItems'),
  ...holding('schema', 'additionalProperties', 'propertyNames', 'unevaluatedProperties'),
  ...holding('schemas', 'allOf', 'anyOf', 'oneOf', 'prefixItems'),
  ...holding('named schemas', 'properties', 'patternProperties', 'dependentSchemas'),
  ...holding('definitions', '$defs', 'definitions'),
  ...holding('rule', 'type', 'enum', 'const', 'format', 'pattern', 'minLength', 'maxLength'),
  ...holding('rule', 'multipleOf', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'),
  ...holding('rule', 'minItems', 'maxItems', 'uniqueItems', 'minContains', 'maxContains'),
  ...holding('rule', 'required', 'dependentRequired', 'minProperties', 'maxProperties'),
  ...holding('note', '$ref', '$schema', '$comment', 'title', 'description', 'default', 'examples'),
  ...holding('note', 'deprecated', 'readOnly', 'writeOnly'),
  ...holding('note', 'contentMediaType', 'contentEncoding', 'contentSchema'),
]);

/** Formats whose checks take linear time. Any other is refused, since it would not be checked. */
export const FORMATS = [
  'date-time',
  'date',
  'time',
  'uuid',
  'email',
  'uri',
  'ipv4',
  'ipv6',
  'hostname',
] as const;

/**
 * Units of work that one check may take: about 100 ns each in the worst case, so a check ends within some
 * hundred milliseconds whatever schema and payload are. A plain payload of 64 KiB needs some thousands.
 */
export const WORK_LIMIT = 2_000_000;
/** Units for finding all faults of a payload once it is known not to fit. Beyond, the first one is told. */
const REPORT_LIMIT = 100_000;

/**
 * Compiles a schema that has no reference but local ones that end. `resolve` finds the target of a `$ref`.
 * `work` is the limit in units, infinite for schemas of our own, which take linear time by construction.
 */
export function compileSchema(
  schema: SchemaObject | boolean,
  resolve: (ref: string) => SchemaObject | boolean,
  work: number = WORK_LIMIT,
): PayloadCheck {
  const budget = new Budget();
  const rebuilt = rebuild(schema, resolve);
  const first = makeAjv(budget, false).compile(rebuilt);
  let all: ValidateFunction | undefined;

  return (payload) => {
    try {
      budget.refill(work);
      if (first(payload)) return [];
    } catch (error) {
      if (error instanceof Exhausted) {
        return [{ path: '', message: "takes more work to check against the topic's schema than one may" }];
      }
      throw error;
    }
    const firstErrors = first.errors ?? [];
    first.errors = null;
    try {
      all ??= makeAjv(budget, true).compile(rebuilt);
      budget.refill(REPORT_LIMIT);
      all(payload);
      const findings = toFindings(all.errors ?? []);
      all.errors = null;
      return findings;
    } catch (error) {
      if (error instanceof Exhausted) return toFindings(firstErrors);
      throw error;
    }
  };
}

/** The schema as it is compiled: references written out, notes left out, each subschema with its price. */
function rebuild(
  schema: SchemaObject | boolean,
  resolve: (ref: string) => SchemaObject | boolean,
): SchemaObject | boolean {
  if (typeof schema === 'boolean') return schema;
  const priced = (sub: unknown): unknown => {
    const inner = rebuild(sub as SchemaObject | boolean, resolve);
    if (typeof inner === 'boolean') return inner;
    return { $price: price(inner), allOf: [inner] };
  };
  const node: Record<string, unknown> = {};
  const beside: unknown[] = [];
  for (const [keyword, value] of Object.entries(schema)) {
    const holds = KEYWORDS.get(keyword);
    if (holds === 'schema') node[keyword] = priced(value);
    else if (holds === 'schemas') node[keyword] = (value as unknown[]).map(priced);
    else if (holds === 'named schemas') {
      const named = Object.entries(value as SchemaObject);
      node[keyword] = Object.fromEntries(named.map(([name, sub]) => [name, priced(sub)]));
    } else if (keyword === 'dependentRequired') {
      for (const [member, required] of Object.entries(value as SchemaObject)) {
        beside.push(priced({ if: { not: { required: [member] } }, else: { required } }));
      }
    } else if (holds === 'rule' || keyword === 'title') node[keyword] = value;
  }
  if (typeof schema.$ref === 'string') beside.push(priced(resolve(schema.$ref)));
  if (beside.length > 0) node.allOf = [...beside, ...((node.allOf as unknown[] | undefined) ?? [])];
  return node;
}

/** Units that one evaluation costs, beside those for the size of the value. */
function price(node: SchemaObject): number {
  let characters = 0;
  for (const [keyword, value] of Object.entries(node)) {
    const holds = KEYWORDS.get(keyword);
    // Allowed values are looked up, however many there are.
    if (keyword === 'enum' || keyword === 'const') continue;
    if (holds === 'rule') characters += JSON.stringify(value).length;
    else if (holds === 'named schemas') characters += Object.keys(value as SchemaObject).join().length;
  }
  return 3 + Math.floor(characters / 32);
}

function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length / 64;
  if (typeof value !== 'object' || value === null) return 0;
  return Array.isArray(value) ? value.length / 4 : Object.keys(value).length * 2;
}

function makeAjv(budget: Budget, allErrors: boolean): Ajv2020 {
  const regExp = Object.assign(
    (pattern: string) => {
      const compiled = new LinearRegExp(pattern);
      return {
        test: (text: string) => compiled.test(text, budget),
        toString: () => pattern,
      };
    },
    { code: 'linear' },
  );
  const ajv = new Ajv2020({
    allErrors,
    verbose: allErrors,
    code: { optimize: false, regExp: regExp as never },
    logger: false,
    loopRequired: 16,
    meta: false,
    multipleOfPrecision: 9,
    ownProperties: true,
    strict: false,
    strictNumbers: true,
    validateSchema: false,
  });
  for (const format of FORMATS) ajv.addFormat(format, fastFormats[format]);
  for (const keyword of ['enum', 'const', 'uniqueItems']) ajv.removeKeyword(keyword);
  const canonical = (value: unknown): string => {
    if (exceedsDepth(value)) throw new Exhausted();
    const text = canonicalJson(value);
    budget.spend(text.length);
    return text;
  };
  const keywords: KeywordDefinition[] = [
    {
      keyword: '$price',
      before: 'allOf',
      schemaType: 'number',
      errors: false,
      compile: (units: number) => (value: unknown) => {
        budget.spend(units + sizeOf(value));
        return true;
      },
    },
    // Ajv's own comparison throws on members named valueOf or toString, and takes __proto__ for nothing.
    {
      keyword: 'enum',
      schemaType: 'array',
      compile: (allowed: unknown[]) => {
        const texts = new Set(allowed.map(canonicalJson));
        return (value: unknown) => texts.has(canonical(value));
      },
    },
    {
      keyword: 'const',
      compile: (only: unknown) => {
        const text = canonicalJson(only);
        return (value: unknown) => canonical(value) === text;
      },
    },
    {
      keyword: 'uniqueItems',
      type: 'array',
      schemaType: 'boolean',
      compile: (unique: boolean) => (items: unknown[]) =>
        !unique || new Set(items.map(canonical)).size === items.length,
    },
  ];
  for (const keyword of keywords) ajv.addKeyword(keyword);
  noteMatchedMembers(ajv);
  evaluateOwnMembersOnly(ajv);
  return ajv;
}

/**
 * Ajv's `patternProperties` writes what it evaluated into the notes of the keywords before it. Those are undefined
 * where an alternative did not fit, and `true` where one took all members: it throws on both.
 */
function noteMatchedMembers(ajv: Ajv2020): void {
  const keyword = 'patternProperties';
  const definition = ajv.getKeyword(keyword) as CodeKeywordDefinition;
  ajv.removeKeyword(keyword);
  ajv.addKeyword({
    ...definition,
    keyword,
    code: (context) => {
      const { gen, it } = context;
      const noted = it.props;
      if (!(noted instanceof Name)) return definition.code(context);
      const matched = gen.let('props', _`{}`);
      it.props = matched;
      definition.code(context);
      gen.assign(noted, _`${noted} === true || Object.assign(${noted} || {}, ${matched})`);
      it.props = noted;
    },
  });
}

/** Ajv notes evaluated members in a plain object, and so takes `constructor` for one: here it has no prototype. */
function evaluateOwnMembersOnly(ajv: Ajv2020): void {
  const keyword = 'unevaluatedProperties';
  const definition = ajv.getKeyword(keyword) as CodeKeywordDefinition;
  ajv.removeKeyword(keyword);
  ajv.addKeyword({
    ...definition,
    keyword,
    code: (context) => {
      const { gen, it } = context;
      if (it.props instanceof Name) {
        const own = gen.scopeValue('func', { ref: withoutPrototype });
        gen.assign(it.props, _`${own}(${it.props})`);
      }
      definition.code(context);
    },
  });
}

function withoutPrototype(evaluated: object | true | undefined): object | true | undefined {
  return typeof evaluated === 'object' ? Object.assign(Object.create(null), evaluated) : evaluated;
}

/** Ajv's errors as findings: a schema's `title` stands for all that its alternatives have to say. */
export function toFindings(errors: readonly ErrorObject[]): readonly Finding[] {
  const kept: ErrorObject[] = [];
  for (const error of errors) {
    // The fault of a name, and what `then` or `else` ask for, are errors of their own.
    if (error.propertyName !== undefined || error.keyword === 'if') continue;
    while (titled(error) && isBelow(kept.at(-1), error)) kept.pop();
    kept.push(error);
  }
  const findings = new Map<string, Finding>();
  for (const error of kept) {
    if (findings.size === FINDING_LIMIT) break;
    const finding = { path: pathOf(error), message: messageOf(error) };
    findings.set(JSON.stringify(finding), finding);
  }
  // What does not fit has a finding, whatever was left out above.
  if (findings.size === 0) return [{ path: '', message: 'does not fit the schema' }];
  return [...findings.values()];
}

function titled(error: ErrorObject): boolean {
  const isChoice = error.keyword === 'anyOf' || error.keyword === 'oneOf';
  return isChoice && typeof error.parentSchema?.title === 'string';
}

function isBelow(error: ErrorObject | undefined, above: ErrorObject): boolean {
  return (
    error?.schemaPath.startsWith(`${above.schemaPath}/`) === true &&
    `${error.instancePath}/`.startsWith(`${above.instancePath}/`)
  );
}

/** Where the fault is: the member that is missing or too many, else the value. */
function pathOf({ instancePath, params }: ErrorObject): string {
  const member: unknown =
    params.missingProperty ?? params.additionalProperty ?? params.unevaluatedProperty ?? params.propertyName;
  return boundedPointer(typeof member === 'string' ? instancePath + pointerStep(member) : instancePath);
}

function messageOf(error: ErrorObject): string {
  // The first, quick check does not keep the schema with its errors.
  if (error.schema === undefined) return shortened(`breaks the rule ${error.keyword}`);
  switch (error.keyword) {
    case 'required':
      return 'is required';
    case 'additionalProperties':
    case 'unevaluatedProperties':
    case 'false schema':
      return 'is not allowed';
    case 'propertyNames':
      return 'has a name that is not allowed';
    case 'enum':
      return `must be one of ${listed(error.schema as unknown[])}`;
    case 'const':
      return `must be ${listed([error.schema])}`;
    case 'uniqueItems':
      return 'must not hold the same item twice';
    case 'not':
      return 'has a form that is not allowed';
    case 'anyOf':
      return titled(error) ? `must be ${shortened(error.parentSchema?.title)}` : 'fits none of the forms';
    case 'oneOf':
      if (error.params.passingSchemas) return 'fits more than one of the forms';
      return titled(error) ? `must be ${shortened(error.parentSchema?.title)}` : 'fits none of the forms';
    default:
      return shortened(error.message ?? `breaks the rule ${error.keyword}`);
  }
}

/** The values that a schema allows: they come from the schema, never from a payload. */
function listed(values: readonly unknown[]): string {
  return shortened(values.map((value) => JSON.stringify(value)).join(', '));
}

function shortened(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 199)}…`;
}
