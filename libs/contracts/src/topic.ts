/**
 * Topics: names that people write, and the paths that identify them (docs/protocols/events.md, "Words").
 *
 * `:` `/` `.` all split a name, so many names lead to one path; permission, reservation and delivery look at
 * the path alone.
 */
import { createHash } from 'node:crypto';
import type { CatalogueEntry } from './catalogue/entry.js';
import { CATALOGUE } from './catalogue/index.js';
import { ProblemError } from './problem.js';
import { decodePath, encodePath, encodeToken, exceeds, NO_KEY } from './subject.js';

/** One topic. */
export interface Topic {
  /** As the caller wrote it, or as {@link topicAt} found it. */
  readonly name: string;
  /** `<key>.<segments>`: the topic's identity in its audience. */
  readonly path: string;
  /** The key: a template's parameter (its SHA-256 where that is a secret), null for an unkeyed topic. */
  readonly key: string | null;
  readonly segments: readonly string[];
  readonly entry: CatalogueEntry | undefined;
}

/** Several topics, by wildcards: a subscriber takes what any of the filters takes. No two take the same topic. */
export interface Pattern {
  readonly name: string;
  /** Path filters, in NATS's syntax. The first one is for unkeyed topics unless the pattern has none. */
  readonly filters: readonly string[];
}

export const BROADCAST = '__broadcast__';

const SEPARATOR = /[:/.]/;
const FORBIDDEN = /[\s\p{Cc}*>]/u;
/** The longest name of a room's event, in characters. */
export const EVENT_NAME_LIMIT = 255;
const LIMITS = { name: 200, segments: 12, segment: 64, parameterBytes: 255 } as const;

interface Template {
  readonly entry: CatalogueEntry;
  readonly segments: readonly string[];
  /** Takes the parameter out of a name; undefined for a hidden parameter. */
  readonly matcher: RegExp | undefined;
}

const bySegments = new Map<string, CatalogueEntry>();
const aliases = new Map<string, CatalogueEntry>();
const templates: Template[] = [];
for (const entry of CATALOGUE.values()) {
  const segments = entry.name.split(SEPARATOR);
  bySegments.set(encodeSegments(segments), entry);
  for (const alias of entry.aliases ?? []) aliases.set(encodeSegments(alias.split(SEPARATOR)), entry);
  if (!entry.parameter) continue;
  const prefix = segments.map((segment) => segment.replace(/[^\w]/g, '\\$&')).join('[:/.]');
  templates.push({
    entry,
    segments,
    matcher: entry.parameter.hidden ? undefined : new RegExp(`^${prefix}[:/.](.*)$`, 's'),
  });
}

/** Rooms end in an event name, which is one segment of 1 to 255 characters, whatever they are. */
const ROOM = /^room[:/.](?:(organization)|(event|session)[:/.]([^:/.]+))[:/.](.*)$/s;

/**
 * The topic of a name.
 * @param target the key of a topic whose parameter is hidden (`usernotification:created`): the user's id
 * @throws ProblemError `request_invalid`, saying which rule of the name is broken
 */
export function parseTopic(name: unknown, target?: string | null): Topic {
  if (typeof name !== 'string' || name === '') throw invalid('must be a text of 1 to 200 characters');
  const known = parsed.get(name);
  if (known) return known;
  if (!name.isWellFormed()) throw invalid('is not well-formed Unicode');
  const topic = templateTopic(name) ?? roomTopic(name) ?? plainTopic(name, target);
  const { hidden, secret } = topic.entry?.parameter ?? {};
  // The name alone does not say which topic it is, or must not be kept.
  if (hidden || secret || name.length > LIMITS.name) return topic;
  if (parsed.size >= MAX_PARSED) parsed.clear();
  parsed.set(name, topic);
  return topic;
}

/** Topics by name: a publisher names the same one with each event, and each event names its own. */
const parsed = new Map<string, Topic>();
const MAX_PARSED = 4_096;

/** The topic of a catalogue entry for one owner: `ownTopic('personal', 'alice')`. */
export function ownTopic(entryName: string, key: string): Topic {
  const entry = CATALOGUE.get(entryName);
  if (!entry?.parameter) throw new RangeError(`${entryName} is no template of the catalogue`);
  const name = entry.parameter.hidden ? entry.name : `${entry.name}${entry.separator ?? ':'}${key}`;
  return keyedTopic(name, entry, key);
}

/**
 * The topic at a path, as a subscriber of a pattern sees it. Its name is the catalogue's, under which alone a
 * documented topic can be registered; else the registered one; else the header `Topic` if that leads to this
 * very path; else the segments joined by `/`. Undefined for a path that no name leads to.
 */
export function topicAt(path: string, registered?: string, header?: string): Topic | undefined {
  const decoded = decodePath(path);
  if (!decoded) return undefined;
  const { key, segments } = decoded;
  const entry = bySegments.get(encodeSegments(segments));
  if (key !== null) {
    if (!entry?.parameter || Buffer.byteLength(key) > LIMITS.parameterBytes) return undefined;
    const name = entry.parameter.hidden ? entry.name : `${entry.name}${entry.separator ?? ':'}${key}`;
    return { name, path, key, segments, entry };
  }
  if (entry) return entry.parameter ? undefined : { name: entry.name, path, key, segments, entry };
  for (const name of [registered, header, segments.join('/')]) {
    const topic = name === undefined ? undefined : tryParse(name);
    if (topic?.path === path) return topic;
  }
  return undefined;
}

/** Whether a name holds a wildcard: `*` as a segment, or `>` as the last one. */
export function hasWildcard(name: string): boolean {
  const segments = name.split(SEPARATOR);
  return segments.includes('*') || segments.at(-1) === '>';
}

/** Whether a text can be one segment of a name. An id that cannot would name no topic, or another one. */
export function isSegment(text: string): boolean {
  return text.isWellFormed() && !SEPARATOR.test(text) && faultOf(text) === undefined;
}

/**
 * The filters of a pattern (`community:*:invite`, `sync.>`): `*` is one segment, `>` the rest. A template's
 * parameter is taken whole, by a wildcard at the end; a topic of several spellings goes by its first.
 * @throws ProblemError `request_invalid`
 */
export function parsePattern(name: unknown): Pattern {
  if (typeof name !== 'string' || name === '' || exceeds(name, LIMITS.name) || !name.isWellFormed()) {
    throw invalid('must be a text of 1 to 200 characters');
  }
  const segments = name.split(SEPARATOR);
  if (segments.length > LIMITS.segments) throw invalid(`has more than ${LIMITS.segments} segments`);
  segments.forEach((segment, i) => {
    if (segment === '*' || (segment === '>' && i === segments.length - 1)) return;
    checkSegment(segment);
  });
  const tokens = segments.map((segment) => (isWild(segment) ? segment : encodeToken(segment)));
  const keyed = templates
    .filter((template) => patternTakes(segments, template))
    .map((template) => `*.${encodeSegments(template.segments)}`);
  return { name, filters: [`${NO_KEY}.${tokens.join('.')}`, ...keyed] };
}

/**
 * The filters of a name in a list of permissions: a pattern, a topic, or a topic with a hidden parameter,
 * which then stands for every target.
 */
export function parseFilters(name: string): readonly string[] {
  const hidden = hiddenEntry(name);
  if (hidden) return [`*.${encodeSegments(hidden.name.split(SEPARATOR))}`];
  return hasWildcard(name) ? parsePattern(name).filters : [parseTopic(name).path];
}

/** The catalogue entry with a hidden parameter that a name leads to. */
export function hiddenEntry(name: string): CatalogueEntry | undefined {
  if (exceeds(name, LIMITS.name)) return undefined;
  const entry = bySegments.get(name.split(SEPARATOR).join('.'));
  return entry?.parameter?.hidden ? entry : undefined;
}

/** The name that goes into headers and logs: a secret parameter appears as its SHA-256. */
export function publicName(topic: Topic): string {
  return topic.entry?.parameter?.secret
    ? `${topic.entry.name}${topic.entry.separator ?? ':'}${topic.key}`
    : topic.name;
}

function templateTopic(name: string): Topic | undefined {
  for (const { entry, matcher } of templates) {
    const parameter = matcher?.exec(name)?.[1];
    if (parameter !== undefined) return keyedTopic(name, entry, parameter);
  }
  return undefined;
}

function keyedTopic(name: string, entry: CatalogueEntry, parameter: string): Topic {
  if (!parameter.isWellFormed()) throw invalid('is not well-formed Unicode');
  const bytes = Buffer.byteLength(parameter);
  if (bytes < 1 || bytes > LIMITS.parameterBytes) {
    throw invalid(
      `needs ${entry.parameter?.name} of 1 to ${LIMITS.parameterBytes} bytes after ${entry.name}`,
    );
  }
  const key = entry.parameter?.secret ? createHash('sha256').update(parameter).digest('hex') : parameter;
  const segments = entry.name.split(SEPARATOR);
  return { name, path: encodePath(key, segments), key, segments, entry };
}

function roomTopic(name: string): Topic | undefined {
  const match = ROOM.exec(name);
  if (!match) return undefined;
  const [, organization, kind, id, eventName] = match;
  if (!eventName || exceeds(eventName, EVENT_NAME_LIMIT)) {
    throw invalid(`needs an event name of 1 to ${EVENT_NAME_LIMIT} characters at its end`);
  }
  const segments = organization ? ['room', organization, eventName] : ['room', kind!, id!, eventName];
  for (const segment of segments.slice(0, -1)) checkSegment(segment);
  return { name, path: encodePath(null, segments), key: null, segments, entry: undefined };
}

function plainTopic(name: string, target: string | null | undefined): Topic {
  if (exceeds(name, LIMITS.name)) throw invalid(`has more than ${LIMITS.name} characters`);
  const segments = name.split(SEPARATOR);
  if (segments.length > LIMITS.segments) throw invalid(`has more than ${LIMITS.segments} segments`);
  for (const segment of segments) checkSegment(segment);
  const encoded = encodeSegments(segments);
  const alias = aliases.get(encoded);
  if (alias) {
    const canonical = alias.name.split(SEPARATOR);
    return { name, path: encodePath(null, canonical), key: null, segments: canonical, entry: alias };
  }
  const entry = bySegments.get(encoded);
  if (entry?.parameter?.hidden) {
    if (target === undefined || target === null) throw invalid(`${name} needs a target`);
    return keyedTopic(name, entry, target);
  }
  if (entry?.parameter) {
    throw invalid(
      `needs ${entry.parameter.name}: ${entry.name}${entry.separator ?? ':'}<${entry.parameter.name}>`,
    );
  }
  return { name, path: encodePath(null, segments), key: null, segments, entry };
}

function patternTakes(pattern: readonly string[], template: Template): boolean {
  const last = pattern.at(-1);
  const { segments } = template;
  const rest = last === '>';
  if (template.entry.parameter?.hidden) return segmentsMatch(pattern, segments);
  if (!rest && last !== '*') return false;
  const head = pattern.slice(0, -1);
  if (!rest) return segmentsMatch(head, segments);
  return head.length <= segments.length && segmentsMatch(head, segments.slice(0, head.length));
}

function segmentsMatch(pattern: readonly string[], segments: readonly string[]): boolean {
  for (let i = 0; i < pattern.length; i++) {
    if (pattern[i] === '>') return segments.length > i;
    if (i >= segments.length || (pattern[i] !== '*' && pattern[i] !== segments[i])) return false;
  }
  return pattern.length === segments.length;
}

function checkSegment(segment: string): void {
  const fault = faultOf(segment);
  if (fault) throw invalid(fault);
}

function faultOf(segment: string): string | undefined {
  if (segment === '') return 'has an empty segment';
  if (exceeds(segment, LIMITS.segment)) return `has a segment of over ${LIMITS.segment} characters`;
  return FORBIDDEN.test(segment) ? 'holds white space, a control character, `*` or `>`' : undefined;
}

function isWild(segment: string): boolean {
  return segment === '*' || segment === '>';
}

function encodeSegments(segments: readonly string[]): string {
  return segments.map(encodeToken).join('.');
}

function tryParse(name: string): Topic | undefined {
  try {
    return parseTopic(name);
  } catch {
    return undefined;
  }
}

function invalid(what: string): ProblemError {
  return new ProblemError('request_invalid', `The topic ${what}`, {
    errors: [{ path: '/topic', message: what }],
  });
}
