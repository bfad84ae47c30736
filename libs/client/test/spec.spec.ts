import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';

const lib = join(import.meta.dirname, '..');

describe('SPEC.md', () => {
  it('names each invariant once, and each has a test whose title names it', () => {
    const text = readFileSync(join(lib, 'SPEC.md'), 'utf8');
    const named = [...text.matchAll(/^- \*\*(I\d+)\*\*/gm)].map(([, invariant]) => invariant!);
    expect(named).toEqual(named.map((_, i) => `I${i + 1}`));
    const specs = readdirSync(join(lib, 'test')).filter((file) => file.endsWith('.spec.ts'));
    const titles = specs.flatMap((file) => [
      ...readFileSync(join(lib, 'test', file), 'utf8').matchAll(/\bit\(\s*['`]([^'`]*)/g),
    ]);
    const tested = new Set(titles.flatMap(([, title]) => title!.match(/\bI\d+\b/g) ?? []));
    expect([...tested].sort()).toEqual([...named].sort());
  });
});
