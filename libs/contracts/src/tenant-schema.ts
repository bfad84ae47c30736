/**
 * What a tenant's schema may be (docs/protocols/courier.md): JSON Schema 2020-12 of bounded size, every rule of
 * which is really checked. What would be ignored or could take long is refused, naming the place.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { boundedPointer, exceedsDepth, pointerStep } from './json.js';
import { FINDING_LIMIT, FORMATS, KEYWORDS, type SchemaObject, toFindings } from './json-schema.js';
import { LinearRegExp } from './linear-regexp.js';
import type { Finding } from './problem.js';

/** Limits of a schema. `inlined` ones count with every reference replaced by what it leads to. */
export const SCHEMA_LIMITS = {
  bytes: 32_768,
  levels: 16,
  inlinedSchemas: 512,
  inlinedLevels: 64,
  inlinedCharacters: 131_072,
  uniqueItems: 256,
  /** Instructions of all its regular expressions together. */
  regExpSize: 2_000,
} as const;

const DRAFT = 'https://json-schema.org/draft/2020-12/schema';

const REFUSED = new Map([
  ...['$id', '$anchor', '$dynamicAnchor', '$dynamicRef', '$recursiveAnchor', '$recursiveRef'].map(
    (keyword) =>
      [keyword, 'is not allowed: a schema stands alone, with references of the form #/… only'] as const,
  ),
  ['$vocabulary', 'is not allowed: it is for metaschemas'],
  ['dependencies', 'is not part of 2020-12: use dependentRequired or dependentSchemas'],
]);

type Schema = SchemaObject | boolean;

/** A subschema and where it stands. */
interface Place {
  readonly path: string;
  readonly schema: Schema;
  /** Subschemas that are evaluated with this one, other than by reference. */
  readonly children: Place[];
}

/** What a schema comes to with its references written out. */
interface Extent {
  readonly schemas: number;
  readonly levels: number;
  readonly characters: number;
}

/** A schema that was looked at. Only where there are no findings may it be compiled. */
export interface InspectedSchema {
  readonly findings: readonly Finding[];
  readonly schema: Schema;
  resolve(ref: string): Schema;
}

/** What is wrong with a tenant's schema: nothing when it can be used. Paths are JSON pointers into the schema. */
export function checkTenantSchema(schema: unknown): readonly Finding[] {
  return inspectSchema(schema).findings;
}

/** As {@link checkTenantSchema}, keeping what compiling needs. */
export function inspectSchema(schema: unknown): InspectedSchema {
  const refused = (findings: readonly Finding[]): InspectedSchema => ({
    findings,
    schema: false,
    resolve: () => false,
  });
  const misshapen = checkShape(schema);
  if (misshapen.length > 0) return refused(misshapen);
  const inspection = new Inspection(schema as Schema);
  if (inspection.findings.length > 0) return refused(inspection.findings.slice(0, FINDING_LIMIT));
  return {
    findings: [],
    schema: schema as Schema,
    resolve: (ref) => inspection.target(ref)?.schema ?? false,
  };
}

/** The checks that come first, since they bound what all others have to do. */
function checkShape(schema: unknown): readonly Finding[] {
  const { bytes, levels } = SCHEMA_LIMITS;
  if (exceedsDepth(schema, levels)) return [{ path: '', message: `nests more than ${levels} levels` }];
  const text = JSON.stringify(schema) as string | undefined;
  if (text === undefined) return [{ path: '', message: 'must be an object or a boolean' }];
  if (Buffer.byteLength(text) > bytes) return [{ path: '', message: `is larger than ${bytes} bytes` }];
  const metaschema = draft202012();
  return metaschema(schema) ? [] : toFindings(metaschema.errors ?? []);
}

let metaschemas: Ajv2020 | undefined;

/** Ajv's own 2020-12 metaschema; nothing of a tenant's is ever added to this instance. */
function draft202012() {
  metaschemas ??= new Ajv2020({ logger: false, ownProperties: true, strict: false, verbose: true });
  const validate = metaschemas.getSchema(DRAFT);
  if (validate === undefined) throw new Error('Ajv has no metaschema of draft 2020-12');
  return validate;
}

class Inspection {
  readonly findings: Finding[] = [];
  readonly #places = new Map<string, Place>();
  readonly #extents = new Map<Place, Extent | 'open'>();
  #regExpSize = 0;

  constructor(schema: Schema) {
    const root = this.#visit('', schema);
    for (const place of this.#places.values()) this.#measure(place);
    if (this.findings.length > 0) return;
    const { schemas, levels, characters } = this.#measure(root);
    const { inlinedSchemas, inlinedLevels, inlinedCharacters } = SCHEMA_LIMITS;
    const inlined = 'with its references written out';
    if (schemas > inlinedSchemas) this.#find('', `has more than ${inlinedSchemas} subschemas ${inlined}`);
    if (levels > inlinedLevels) this.#find('', `nests more than ${inlinedLevels} subschemas ${inlined}`);
    if (characters > inlinedCharacters) {
      this.#find('', `is longer than ${inlinedCharacters} characters ${inlined}`);
    }
  }

  /** The subschema to which a local reference leads. */
  target(ref: string): Place | undefined {
    try {
      return this.#places.get(decodeURIComponent(ref.slice(1)));
    } catch {
      return undefined;
    }
  }

  #find(path: string, message: string): void {
    this.findings.push({ path: boundedPointer(path), message });
  }

  #visit(path: string, schema: Schema): Place {
    const place: Place = { path, schema, children: [] };
    this.#places.set(path, place);
    if (typeof schema === 'boolean') return place;
    for (const [keyword, value] of Object.entries(schema)) {
      const at = path + pointerStep(keyword);
      const holds = KEYWORDS.get(keyword);
      if (holds === 'schema') place.children.push(this.#visit(at, value as Schema));
      else if (holds === 'schemas') {
        for (const [i, sub] of (value as Schema[]).entries()) {
          place.children.push(this.#visit(at + pointerStep(i), sub));
        }
      } else if (holds === 'named schemas' || holds === 'definitions') {
        for (const [name, sub] of Object.entries(value as Record<string, Schema>)) {
          const named = this.#visit(at + pointerStep(name), sub);
          if (holds === 'named schemas') place.children.push(named);
        }
      } else if (holds === undefined) {
        this.#find(at, REFUSED.get(keyword) ?? 'is no keyword of JSON Schema 2020-12');
      }
    }
    this.#checkRules(path, schema);
    return place;
  }

  #checkRules(path: string, schema: SchemaObject): void {
    const { $schema, $ref, format, pattern, uniqueItems, maxItems } = schema;
    if ($schema !== undefined && (path !== '' || ($schema !== DRAFT && $schema !== `${DRAFT}#`))) {
      this.#find(`${path}/$schema`, `may be ${DRAFT} at the top, or left out`);
    }
    if (typeof $ref === 'string' && !$ref.startsWith('#/')) {
      this.#find(`${path}/$ref`, 'must be of the form #/…: a schema refers to its own parts only');
    }
    if (typeof format === 'string' && !(FORMATS as readonly string[]).includes(format)) {
      this.#find(`${path}/format`, `${JSON.stringify(format)} is not one of ${FORMATS.join(', ')}`);
    }
    if (uniqueItems === true && !(typeof maxItems === 'number' && maxItems <= SCHEMA_LIMITS.uniqueItems)) {
      this.#find(`${path}/uniqueItems`, `needs a maxItems of at most ${SCHEMA_LIMITS.uniqueItems} beside it`);
    }
    if (typeof pattern === 'string') this.#checkPattern(`${path}/pattern`, pattern);
    for (const name of Object.keys(schema.patternProperties ?? {})) {
      this.#checkPattern(`${path}/patternProperties${pointerStep(name)}`, name);
    }
    for (const keyword of ['properties', 'dependentSchemas', 'dependentRequired', '$defs', 'definitions']) {
      if (Object.hasOwn(schema[keyword] ?? {}, '__proto__')) {
        this.#find(`${path}/${keyword}/__proto__`, 'is a name that cannot be described');
      }
    }
  }

  #checkPattern(path: string, pattern: string): void {
    const { regExpSize } = SCHEMA_LIMITS;
    if (this.#regExpSize > regExpSize) return;
    try {
      this.#regExpSize += new LinearRegExp(pattern).size;
      if (this.#regExpSize > regExpSize) {
        this.#find(
          path,
          `is too large: the regular expressions have over ${regExpSize} instructions together`,
        );
      }
    } catch (error) {
      this.#find(path, (error as SyntaxError).message);
    }
  }

  /** Walks references too, each subschema once: doubled references cost nothing to count. */
  #measure(place: Place): Extent {
    const known = this.#extents.get(place);
    if (known === 'open') return { schemas: Infinity, levels: Infinity, characters: Infinity };
    if (known !== undefined) return known;
    this.#extents.set(place, 'open');
    const parts = place.children.map((child) => this.#measure(child));
    const ref = typeof place.schema === 'boolean' ? undefined : place.schema.$ref;
    if (typeof ref === 'string' && ref.startsWith('#/')) {
      const target = this.target(ref);
      if (target === undefined) this.#find(`${place.path}/$ref`, 'does not lead to a subschema');
      else if (this.#extents.get(target) === 'open') {
        this.#find(`${place.path}/$ref`, 'leads back to itself, which is not supported');
      } else parts.push(this.#measure(target));
    }
    const extent = {
      schemas: 1 + sum(parts.map((part) => part.schemas)),
      levels: 1 + Math.max(0, ...parts.map((part) => part.levels)),
      characters: ownCharacters(place.schema) + sum(parts.map((part) => part.characters)),
    };
    this.#extents.set(place, extent);
    return extent;
  }
}

/** The length of a subschema's own rules as JSON, without those of the subschemas in it. */
function ownCharacters(schema: Schema): number {
  if (typeof schema === 'boolean') return 5;
  let characters = 2;
  for (const [keyword, value] of Object.entries(schema)) {
    const holds = KEYWORDS.get(keyword);
    if (holds === 'rule') characters += JSON.stringify(value).length;
    if (holds === 'named schemas') characters += Object.keys(value as object).join().length;
    if (holds !== 'note') characters += keyword.length;
  }
  return characters;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
