/**
 * Names of topics as the server judges them (docs/protocols/events.md, "Words"): `:` `/` `.` all split a name, so
 * one topic has several spellings, and a connection has it once. Where the end of a name is taken whole, whatever it
 * is (a template's parameter, a room's event name), only what stands before it has other spellings.
 */

/** How many segments stand before what is taken whole. */
const TEMPLATES: Readonly<Record<string, number>> = {
  user: 1,
  client: 1,
  personal: 1,
  local_sync: 1,
  changed_task: 1,
  log_message: 1,
  incoming_mail: 1,
  incoming_trello_change: 1,
  sync: 1,
  'taskd/certificate': 2,
};
const ROOMS: Readonly<Record<string, number>> = {
  'room/organization': 2,
  'room/event': 3,
  'room/session': 3,
};

/** The reserved topic that broadcasts are on. */
export const BROADCAST = '__broadcast__';

export interface TopicName {
  /** The same for all spellings of a topic. */
  readonly key: string;
  readonly segments: readonly string[];
  /** Whether the last segment is a template's parameter. */
  readonly keyed: boolean;
}

export function topicName(name: string): TopicName {
  const parts = name.split(/[:/.]/);
  const pair = `${parts[0]}/${parts[1]}`;
  const template = own(TEMPLATES, parts[0] as string) ?? own(TEMPLATES, pair);
  const head = template ?? own(ROOMS, pair);
  if (head === undefined || parts.length <= head)
    return { key: parts.join('/'), segments: parts, keyed: false };
  const segments = parts.slice(0, head);
  segments.push(name.slice(segments.join('/').length + 1));
  return { key: segments.join('/'), segments, keyed: template !== undefined };
}

function own(table: Readonly<Record<string, number>>, name: string): number | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

/** Whether a name is a pattern: `*` as a segment, or `>` as the last one. */
export function isPattern(name: string): boolean {
  const parts = name.split(/[:/.]/);
  return parts.includes('*') || parts[parts.length - 1] === '>';
}

/** Whether a pattern's segments take a topic. A template's parameter is taken by a wildcard at the end alone; broadcasts by none. */
export function takes(pattern: readonly string[], { segments, keyed }: TopicName): boolean {
  if (segments[0] === BROADCAST) return false;
  const last = pattern[pattern.length - 1];
  if (keyed && last !== '*' && last !== '>') return false;
  for (let i = 0; i < pattern.length; i++) {
    if (pattern[i] === '>') return segments.length > i;
    if (i >= segments.length || (pattern[i] !== '*' && pattern[i] !== segments[i])) return false;
  }
  return pattern.length === segments.length;
}
