import { describe, expect, it } from '@jest/globals';
import { cpuTime } from '@posthorn/testing';
import { Type } from '@sinclair/typebox';
import { checkForCatalogue, compilePayload, exceedsDepth } from './schema.js';

describe('a payload check', () => {
  it('names each place and what is wrong there', () => {
    const check = compilePayload(
      Type.Object({ a: Type.String(), list: Type.Array(Type.Integer()), 'a/b~c': Type.Boolean() }),
    );
    expect(check({ list: [1, 'x'], 'a/b~c': 0 })).toEqual([
      { path: '/a', message: 'is required' },
      { path: '/list/1', message: 'must be integer' },
      { path: '/a~1b~0c', message: 'must be boolean' },
    ]);
  });

  it('tells of alternatives with a title in one finding', () => {
    const check = compilePayload(
      Type.Union([Type.String(), Type.Array(Type.String())], { title: 'a text or texts' }),
    );
    expect(check([1, 2])).toEqual([{ path: '', message: 'must be a text or texts' }]);
  });

  it('takes members of numbers only where they are finite', () => {
    expect(compilePayload(Type.Number())(Number.NaN)).toHaveLength(1);
  });

  it('holds for values that nest without end', () => {
    let deep: unknown = 1;
    for (let i = 0; i < 200_000; i++) deep = { id: deep };
    expect(compilePayload(Type.Object({ a: Type.Literal('x') }))({ a: deep })).toHaveLength(1);
    expect(checkForCatalogue('community:join')({ author: deep, target: 'b', community: 'c' })).toHaveLength(
      1,
    );
  });

  it('is compiled once for each topic', () => {
    expect(checkForCatalogue('community:join')).toBe(checkForCatalogue('community:join'));
  });

  it('checks a payload of 1 MiB, and tells of one full of faults without delay', () => {
    const join = checkForCatalogue('community:join');
    const event = { author: 'a', target: 'b', community: 'c' };
    const control = cpuTime(() =>
      expect(join({ ...event, managers: new Array(250_000).fill('m') })).toEqual([]),
    );
    const faulty = { ...event, managers: new Array(250_000).fill(null) };
    let findings: readonly unknown[] = [];
    expect(cpuTime(() => (findings = join(faulty)))).toBeLessThan(20 * control + 1_000);
    expect(findings[0]).toEqual(expect.objectContaining({ path: '/managers/0' }));
  });
});

describe('the depth of JSON', () => {
  const nested = (levels: number): unknown => {
    let value: unknown = 'leaf';
    for (let i = 0; i < levels; i++) value = i % 2 ? [value] : { a: value };
    return value;
  };

  it('counts objects and arrays', () => {
    expect(exceedsDepth('text', 0)).toBe(false);
    expect(exceedsDepth({}, 0)).toBe(true);
    expect(exceedsDepth({ a: [1] }, 2)).toBe(false);
    expect(exceedsDepth({ a: [[]] }, 2)).toBe(true);
  });

  it('is limited to 64 levels where nothing else is said', () => {
    expect(exceedsDepth(nested(64))).toBe(false);
    expect(exceedsDepth(nested(65))).toBe(true);
  });

  it('is found without recursion', () => {
    expect(exceedsDepth(nested(1_000_000))).toBe(true);
  });
});
