/** Parsed JSON: limits and comparisons that hold for hostile values too. */

/** How deep a body or payload may nest: an object or array inside another is one level more. */
export const DEPTH_LIMIT = 64;
const POINTER_LIMIT = 500;

/**
 * Whether objects and arrays nest more than `max` levels (`{}` is one level, a text none). Walks level by level
 * without recursion, so that no value overflows the stack; whatever recurses over JSON comes after this check.
 */
export function exceedsDepth(value: unknown, max: number = DEPTH_LIMIT): boolean {
  let level = isContainer(value) ? [value] : [];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth === max) return true;
    const next: object[] = [];
    for (const container of level) {
      for (const member of Object.values(container)) if (isContainer(member)) next.push(member);
    }
    level = next;
  }
  return false;
}

/** One text for each JSON value: equal values, whatever the order of their members, give equal texts. */
export function canonicalJson(value: unknown): string {
  if (!isContainer(value)) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`).join(',')}}`;
}

/** One step of a JSON pointer (RFC 6901). */
export function pointerStep(name: string | number): string {
  return `/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

/** A pointer that is not longer than 500 characters: what lies deeper is told by an ancestor's. */
export function boundedPointer(pointer: string): string {
  return pointer.length <= POINTER_LIMIT
    ? pointer
    : pointer.slice(0, pointer.lastIndexOf('/', POINTER_LIMIT));
}

function isContainer(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
