/** Rows told apart and grouped by several texts. */

/** A map's key for several texts, whatever they hold. */
export function keyOf(...parts: readonly string[]): string {
  return JSON.stringify(parts);
}

export function groupBy<T>(rows: readonly T[], key: (row: T) => string): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) {
    const group = groups.get(key(row));
    if (group) group.push(row);
    else groups.set(key(row), [row]);
  }
  return groups;
}

export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
