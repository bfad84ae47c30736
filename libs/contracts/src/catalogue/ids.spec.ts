import { describe, expect, it } from '@jest/globals';
import { compilePayload } from '../schema.js';
import { findId, Id, idOf } from './ids.js';

describe('ids in payloads', () => {
  const check = compilePayload(Id);

  it.each<[unknown, string]>([
    ['alice', 'alice'],
    [42, '42'],
    [0, '0'],
    [{ _id: 'a' }, 'a'],
    [{ id: 7, name: 'x' }, '7'],
    [{ _id: 'a', id: 'b' }, 'a'],
    [{ _id: '', id: 'b' }, 'b'],
  ])('%j is the id %j', (value, id) => {
    expect(check(value)).toEqual([]);
    expect(idOf(value)).toBe(id);
  });

  it.each<[unknown]>([
    [''],
    [null],
    [undefined],
    [true],
    [[]],
    [['a']],
    [{}],
    [{ id: null }],
    [{ id: '' }],
    [{ _id: { _id: 'a' } }],
    [Number.NaN],
  ])('%j is none', (value) => {
    expect(check(value)).toEqual([{ path: '', message: `must be ${Id.title}` }]);
    expect(findId(value)).toBeUndefined();
    expect(() => idOf(value)).toThrow(expect.objectContaining({ code: 'payload_invalid' }));
  });

  it('are refused where they cannot be written into a subject or a table', () => {
    expect(findId('a\0b')).toBeUndefined();
    expect(findId('\ud800')).toBeUndefined();
  });

  it('come from own members only', () => {
    expect(findId(Object.create({ id: 'inherited' }))).toBeUndefined();
  });
});
